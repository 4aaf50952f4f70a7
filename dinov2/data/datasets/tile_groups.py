"""Holding some groups of tiles out of training.

Tiles of one slide resemble each other more than those of two, so a split has to be by slide to be worth anything.
"""

import hashlib
import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from dinov2.distributed import is_main_process
from dinov2.errors import UserError
from dinov2.utils.atomic import atomic_path

logger = logging.getLogger("dinov2")


def held_out_groups(groups: Sequence[str], *, path: Path, share: float | None) -> frozenset[str]:
    """The groups that a list holds out; the list is made if it is not there yet, and never changed afterwards.

    Groups that come later are not in the list and train; tiles that are added to a group go where the group is.

    Args:
        groups: of all tiles, each once.
        path: of the list, one group a line.
        share: of the groups, for a list that is to be made.
    Raises:
        UserError: if the list cannot be used or made.
    """
    if path.is_file():
        listed = frozenset(_read_list(path))
        if listed.isdisjoint(groups):
            raise UserError(f"list {path} names no group of these tiles, such as {min(groups)!r}: it is of other tiles")
        if absent := sorted(listed.difference(groups)):
            logger.warning(
                f"{len(absent):,} of {len(listed):,} groups that {path} holds out, such as {absent[0]!r:.120}, have no "
                f"tiles here. If they are misspelt, their tiles train: names are written as {min(groups)!r:.120} is"
            )
        return listed
    if share is None:
        raise UserError(f"list {path} of held-out tiles does not exist; to have it made, add held_out=0.1 or so")
    chosen = _choose(groups, share)
    if is_main_process():  # all choose the same
        _write_list(path, chosen)
        logger.info(
            f"held out {len(chosen):,} of {len(groups):,} groups of tiles, such as {chosen[0]!r}; {path} lists them"
        )
    return frozenset(chosen)


def _choose(groups: Sequence[str], share: float) -> Sequence[str]:
    """A share of the groups, chosen by their names alone; at least one, and never all."""
    if not 0 < share < 1:
        raise UserError(f"held_out={share}: expected a share of the tiles' groups, between 0 and 1")
    ranked = sorted(groups, key=lambda group: hashlib.sha256(os.fsencode(group)).digest())
    if len(ranked) < 2:
        raise UserError(
            f"held_out={share}: all tiles seem to come from {ranked[0]!r}, so that none can be held out. Slides are "
            "told apart by file names and folders; a list can name them: CSV:file=LIST.csv:group=COLUMN"
        )
    return sorted(ranked[: min(max(round(share * len(ranked)), 1), len(ranked) - 1)])


def _read_list(path: Path) -> list[str]:
    try:
        text = os.fsdecode(path.read_bytes())
    except OSError as error:
        raise UserError(f"list {path} of held-out tiles cannot be read: {error.strerror}") from error
    lines = text.removeprefix("\ufeff").split("\n")  # as editors on Windows save it, too
    return [name for line in lines if (name := line.removesuffix("\r"))]


def _write_list(path: Path, groups: Iterable[str]) -> None:
    try:
        with atomic_path(path) as temporary:
            temporary.write_bytes(os.fsencode("".join(f"{group}\n" for group in groups)))
    except OSError as error:
        raise UserError(f"list {path} of held-out tiles cannot be written: {error.strerror}") from error
