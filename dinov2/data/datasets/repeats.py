"""Images that a list names more than once."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .name_table import NameTable
from .problems import Problems

logger = logging.getLogger("dinov2")


def check_repeats(names: NameTable, targets: np.ndarray, rows: Sequence[int], *, file: Path) -> None:
    """Warn of images that are named again, which makes them count twice, and refuse those with two labels.

    Args:
        targets: (n,) int64, class of each.
        rows: number of the row that names each.
        file: the list, for messages.
    Raises:
        UserError: if an image has two labels.
    """
    problems, pairs = Problems(), _repeats(names)
    for first, again in pairs:
        if targets[first] != targets[again]:
            problems.add(f"row {rows[again]}: {names[again]!r} has another label than in row {rows[first]}")
    problems.refuse(f"list {file} cannot be used")
    if pairs:
        first, again = pairs[0]
        logger.warning(
            f"list {file} names {len(pairs):,} images again, which makes them count as often as they are named; the "
            f"first is {names[again]!r} in rows {rows[first]} and {rows[again]}"
        )


def _repeats(names: NameTable) -> list[tuple[int, int]]:
    """Neighbouring occurrences (earlier, later) of equal names, by hash in 24 bytes a name."""
    hashes = np.fromiter(map(hash, names), np.int64, len(names))
    order = np.argsort(hashes, kind="stable")
    equal = np.flatnonzero(hashes[order[:-1]] == hashes[order[1:]])
    pairs = ((int(order[i]), int(order[i + 1])) for i in equal)
    return sorted((pair for pair in pairs if names[pair[0]] == names[pair[1]]), key=lambda pair: pair[1])
