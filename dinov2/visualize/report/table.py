"""A table of the report, as plain text."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Table:
    """Rows of text; the first cell of a row names it.

    Attributes:
        folded: whether it is shown on a click only.
    """

    caption: str
    header: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    folded: bool = False
