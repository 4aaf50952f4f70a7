"""Tiles that cannot be used: named in a report, and stopping the run only where there are too many."""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from dinov2.distributed import all_gather_object, is_main_process
from dinov2.errors import UserError
from dinov2.utils.outputs import output_errors

from .datasets import TilePlace

logger = logging.getLogger("dinov2")

SHOWN = 20  # bad tiles with a log line of their own; all are in the report


@dataclass(frozen=True)
class BadTile:
    """A tile that was left out: its index in the data set, where it is kept, what is wrong with it, and which tile
    took its place."""

    tile: int
    place: TilePlace
    reason: str
    replaced_by: int

    def __str__(self) -> str:
        return f"tile {self.tile:,} ({self.place}) {self.reason}"

    def json(self) -> str:
        """One line of the report."""
        return json.dumps(
            {"tile": self.tile, **asdict(self.place), "reason": self.reason, "replaced_by": self.replaced_by}
        )


class TooManyBadTilesError(UserError):
    """More bad tiles than the configuration allows."""


class Quarantine:
    """The report of bad tiles of a run, one line of JSON each, and their limit."""

    def __init__(self, path: Path, *, num_tiles: int, max_share: float) -> None:
        """Go on with the report of an earlier part of the run.

        Args:
            num_tiles: tiles of the data set.
            max_share: share of them that may be bad; 0 stops at the first.
        """
        self.path = path
        self.limit = math.ceil(max_share * num_tiles)
        self._known = _read_report(path)
        self._pending: list[BadTile] = []

    @property
    def count(self) -> int:
        """Bad tiles so far."""
        return len(self._known)

    @property
    def pending(self) -> int:
        """What this rank has met since the ranks shared last."""
        return len(self._pending)

    def note(self, bad_tiles: Sequence[BadTile]) -> None:
        """Keep what this rank has met until the ranks `share` it."""
        self._pending.extend(bad_tiles)

    def share(self, pending: int) -> None:
        """Report what the ranks have met since the last call; all of them call it.

        Args:
            pending: of all ranks together; 0 costs nothing.
        Raises:
            TooManyBadTilesError: on all ranks, if the limit is passed.
        """
        if not pending:
            return
        met = [bad for part in all_gather_object(self._pending) for bad in part]
        self._pending = []
        for bad in sorted(met, key=lambda bad: bad.tile):
            if bad.tile not in self._known:
                self._known.add(bad.tile)
                self._report(bad)
        if self.count > self.limit:
            raise TooManyBadTilesError(
                f"{met[-1]}. Bad tiles: {self.count:,}, allowed by data.on_bad_tile and data.max_bad_share: "
                f"{self.limit:,}. They are listed in {self.path}. To check a whole archive: "
                "python scripts/verify_dataset.py --tarball_path ... --output_root ..."
            )

    def _report(self, bad: BadTile) -> None:
        if not is_main_process():
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with output_errors(self.path), self.path.open("a", encoding="utf-8") as file:
            file.write(bad.json() + "\n")
        if self.count <= min(SHOWN, self.limit):
            more = f"; further ones are listed in {self.path} only" if self.count == SHOWN else ""
            count = f"{self.count:,} of at most {self.limit:,} bad tiles"
            logger.warning(f"{bad}. Tile {bad.replaced_by:,} took its place; {count}{more}")


def _read_report(path: Path) -> set[int]:
    """Tiles that the report has; a last line that a crash has cut is removed, and its tile will be met again."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return set()
    whole, _, cut = text.rpartition("\n")
    if cut and is_main_process():
        path.write_text(whole + "\n" if whole else "", encoding="utf-8")
    try:
        return {int(json.loads(line)["tile"]) for line in whole.splitlines()}
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is damaged ({error}); move it away, and bad tiles are listed anew") from error
