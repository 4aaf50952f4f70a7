"""Compares an index with a fresh walk of its archive.

Every row must be a tile that the walk finds, and every name the same.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.builder import IndexBuilder
from dinov2.data.tar_index.errors import ArchiveError, show_name
from dinov2.data.tar_index.fingerprint import current_record
from dinov2.data.tar_index.members import Members
from dinov2.data.tar_index.numpy_files import NameDictWriter
from dinov2.data.tar_index.selection import Selection
from dinov2.data.tar_index.tile_check import Problem


class RowCheck:
    """Takes all tiles of an archive, in order, and finds the rows of an index that are none of them.

    Args:
        tar: path of the archive, for messages.
        entries: (n, 4) or (n, 5) uint64.
        rows: first and one past the last row that lie in this archive.
        note: called with every bad row.
    """

    def __init__(
        self, tar: str, entries: NDArray[np.uint64], *, rows: tuple[int, int], note: Callable[[Problem], None]
    ):
        self._tar, self._entries, self._report = tar, entries, note
        self._next, self._last = rows
        self._index = -1

    def append(self, rows: NDArray[np.generic]) -> None:
        """Compare with the rows of the index that have the same file indices; both ascend."""
        tiles = rows.astype(np.int64)
        if not len(tiles):
            return
        while self._next < self._last:
            own = self._entries[self._next : min(self._next + len(tiles), self._last), 1:4].astype(np.int64)
            count = int(np.argmax(own[:, 0] > tiles[-1, 1])) if (own[:, 0] > tiles[-1, 1]).any() else len(own)
            self._compare(own[:count], tiles)
            self._next += count
            if count < len(own) or not count:
                break

    def close(self) -> None:
        """Rows that are left have file indices beyond the archive's last tile."""
        for row in range(self._next, self._last):
            _, index, start, end = self._entries[row, :4].astype(np.int64).tolist()
            self._note(row, start, end, f"expected a tile, but the archive has no file {index:,} after those checked")

    def _compare(self, own: NDArray[np.int64], tiles: NDArray[np.int64]) -> None:
        places = np.minimum(np.searchsorted(tiles[:, 1], own[:, 0]), len(tiles) - 1)
        wrong = (tiles[places, 1:4] != own).any(axis=1)
        before = np.concatenate([[self._index], own[:-1, 0]])
        wrong |= own[:, 0] <= before
        self._index = int(own[-1, 0]) if len(own) else self._index
        for i in np.flatnonzero(wrong):
            index, start, end = own[i].tolist()
            expected = tiles[places[i]].tolist()
            there = (
                f"bytes {expected[2]:,}-{expected[3]:,}"
                if expected[1] == index
                else "no tile of this number, or another order"
            )
            self._note(
                self._next + int(i), start, end, f"file {index:,}: expected {there}, the entries say {start:,}-{end:,}"
            )

    def _note(self, row: int, start: int, end: int, reason: str) -> None:
        self._report(Problem(self._tar, row, "", start, end, "place", reason))


class NameCheck:
    """Takes all names of an archive and compares what would be written with what is there, without holding either."""

    def __init__(self, stored: BinaryIO):
        self.same = True
        self._stored = stored
        self._writer = NameDictWriter(self)  # type: ignore[arg-type]
        self.count = 0

    def append(self, names: Sequence[bytes]) -> None:
        """The next names."""
        self._writer.append(names)
        self.count += len(names)

    def write(self, data: bytes) -> int:
        """The next bytes as they would be written."""
        self.same = self.same and self._stored.read(len(data)) == data
        return len(data)

    def close(self) -> None:
        """Nothing may follow."""
        self._writer.close()
        self.same = self.same and not self._stored.read(1)


class CountNames:
    """Takes names and only counts them, where there is nothing to compare with."""

    count = 0

    def append(self, names: Sequence[bytes]) -> None:
        """The next names."""
        self.count += len(names)

    def close(self) -> None:
        """Nothing to do."""


def check_headers(tar: Path, rows: RowCheck, *, names: Path, prefix: str | None) -> list[str]:
    """Walk `tar` and compare it with its rows and, if this project wrote them, its file names.

    Args:
        rows: receives the tiles of the walk.
        names: the file with the names; it may be missing.
        prefix: of the index files, to find the record of that file.
    Returns:
        What is wrong with the archive or its names as a whole.
    """
    known = names.is_file() and current_record(names.parent, prefix, names.name) is not None
    try:
        if not known:
            _build(tar, rows, CountNames())
            return []
        with names.open("rb") as stored:
            check = NameCheck(stored)
            _build(tar, rows, check)
    except ArchiveError as error:
        return [str(error)]
    return [] if check.same else [f"{show_name(names)} does not have the names of {show_name(tar)}"]


def _build(tar: Path, rows: RowCheck, names: NameCheck | CountNames) -> None:
    IndexBuilder(rows=rows, names=names, selection=Selection(None, None), labels=None).build(Members(tar))
