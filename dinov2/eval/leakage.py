"""Slides that are on both sides of a comparison, so that scores are better than they would be on others.

Slides are compared by name, as `TileDataset.get_groups("slide")` gives it: what scripts/group_entries.py has found in
a tar, and `slides_of` in a folder. Patients are compared where the groups are named by patient.
"""

import logging
from collections.abc import Set
from typing import NamedTuple

from dinov2.data.datasets import ConcatTileDataset, TileDataset, UnknownGroupsError
from dinov2.data.groups import Groups

logger = logging.getLogger("dinov2")

EXAMPLES = 3


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
    """The slides that two sets share, by the names of the slides of each; None if there are none."""
    shared = sorted(names & others)
    return Overlap(first, second, shared, len(names)) if shared else None


def slide_names(dataset: TileDataset) -> set[str] | None:
    """Names of the slides that have tiles, as far as they are known; None if none are.

    Of several data sets joined to one, those of the ones that know.

    Raises:
        UserError: if they were written down, but for other tiles.
    """
    if isinstance(dataset, ConcatTileDataset):
        known = [names for part in dataset.parts if (names := slide_names(part)) is not None]
        return set[str]().union(*known) if known else None
    try:
        return names_with_tiles(dataset.get_groups("slide"))
    except UnknownGroupsError as error:
        if error.found:
            logger.warning(f"slides are compared with those of other sets as far as they are known: {error}")
        return set(error.found) or None


def names_with_tiles(groups: Groups) -> set[str]:
    """Names of the groups that are not empty."""
    return {name for name, size in zip(groups.names, groups.sizes.tolist()) if size}
