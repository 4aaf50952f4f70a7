"""Millions of names without a Python object for each.

A list of ten million short strings takes a gigabyte, and every worker that a loader forks copies the pages of it as
soon as it counts references to the strings. Two arrays take the bytes of the names and 8 more for each, once.
"""

import os
from array import array
from collections.abc import Iterable, Iterator

import numpy as np


class NameTable:
    """A growing sequence of names; bytes that are not UTF-8 come through, as in Python's file names."""

    def __init__(self, names: Iterable[str] = ()) -> None:
        """Take in names one at a time."""
        self._text, self._ends = bytearray(), array("q", [0])
        for name in names:
            self.append(name)

    def append(self, name: str) -> None:
        """Add a name at the end."""
        self._text += os.fsencode(name)
        self._ends.append(len(self._text))

    def arrays(self) -> list[np.ndarray]:
        """The bytes of all names, and where each ends."""
        return [np.asarray(memoryview(self._text)), np.asarray(memoryview(self._ends))]

    def select(self, mask: np.ndarray) -> "NameTable":
        """The names where a mask (n,) bool is true."""
        return NameTable(self[int(index)] for index in np.flatnonzero(mask))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> str:
        """A name.

        Raises:
            IndexError: outside 0 .. n-1.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"name {index} of {len(self)}")
        return os.fsdecode(bytes(self._text[self._ends[index] : self._ends[index + 1]]))

    def __iter__(self) -> Iterator[str]:
        return map(self.__getitem__, range(len(self)))
