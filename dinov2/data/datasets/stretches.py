"""Several sequences counted as one."""

from bisect import bisect_right
from collections.abc import Iterable
from itertools import accumulate


class Stretches:
    """Finds the sequence that an index falls into, and the index inside it."""

    def __init__(self, lengths: Iterable[int]) -> None:
        self._ends = list(accumulate(lengths))

    def __len__(self) -> int:
        """Items of all sequences."""
        return self._ends[-1] if self._ends else 0

    def find(self, index: int) -> tuple[int, int]:
        """(number of the sequence, index inside it).

        Raises:
            IndexError: outside 0 .. n-1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)}")
        number = bisect_right(self._ends, index)
        return number, int(index) - (self._ends[number - 1] if number else 0)
