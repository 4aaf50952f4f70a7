"""Slides that are on both sides of a comparison, so that scores are better than they would be on others.

Slides are compared by name, as `TileDataset.get_groups("slide")` gives it: what scripts/group_entries.py has found in
a tar, and `slides_of` in a folder. Patients are compared where the groups are named by patient.
"""

import logging
import re
from collections.abc import Iterator, Set
from typing import NamedTuple

from dinov2.data.datasets import ConcatTileDataset, TileDataset, UnknownGroupsError
from dinov2.data.groups import Groups

logger = logging.getLogger("dinov2")

EXAMPLES = 3
_SEPARATOR, _DIGIT = re.compile(r"[_\-. ]"), re.compile(r"\d")


class Overlap(NamedTuple):
    """Slides that two sets of tiles share.

    Attributes:
        first, second: what messages call the sets, such as "the test set".
        shared: their names, sorted; one or more.
        total: slides of the first set.
    """

    first: str
    second: str
    shared: list[str]
    total: int

    def __str__(self) -> str:
        examples = ", ".join(f"{name!r:.120}" for name in self.shared[:EXAMPLES])
        return (
            f"{len(self.shared):,} of {self.total:,} slides of {self.first}, such as {examples}, are in {self.second} "
            "as well"
        )


def find_overlap(first: str, names: Set[str], second: str, others: Set[str]) -> Overlap | None:
    """The slides that two sets share, by the names of the slides of each; None if there are none.

    A name that goes on where another ends is the same slide or patient told in more detail: TCGA-AA-3555-01Z-00-DX1 and
    TCGA-AA-3555, S12-00345_2 and S12-00345.
    """
    beginnings = {start for name in others for start in _beginnings(name)}
    shared = sorted(n for n in names if n in beginnings or not others.isdisjoint(_beginnings(n)))
    return Overlap(first, second, shared, len(names)) if shared else None


def _beginnings(name: str) -> Iterator[str]:
    """A name, and what it begins with, up to a separator; with a digit, since a word alone is no slide."""
    yield name
    ends = (match.start() for match in _SEPARATOR.finditer(name))
    yield from (name[:end] for end in ends if _DIGIT.search(name, 0, end))


def slide_names(dataset: TileDataset, *, has_warned: bool = False) -> set[str] | None:
    """Names of the slides that have tiles, as far as they are known; None if none are.

    Of several data sets joined to one, those of the ones that know.

    Args:
        has_warned: whether it was already said that not all are known.
    Raises:
        UserError: if they were written down, but for other tiles.
    """
    if isinstance(dataset, ConcatTileDataset):
        known = [names for part in dataset.parts if (names := slide_names(part, has_warned=has_warned)) is not None]
        return set[str]().union(*known) if known else None
    try:
        return names_with_tiles(dataset.get_groups("slide"))
    except UnknownGroupsError as error:
        if error.found and not has_warned:
            logger.warning(f"slides are compared with those of other sets as far as they are known: {error}")
        return set(error.found) or None


def names_with_tiles(groups: Groups) -> set[str]:
    """Names of the groups that are not empty."""
    return {name for name, size in zip(groups.names, groups.sizes.tolist()) if size}
