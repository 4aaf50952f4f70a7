"""Finds the names of a list or label table among the members of an archive.

Both sides can have a hundred million names, so neither is held as Python strings. A name is its 64-bit hash,
found by binary search, and a CRC-32 that must agree as well: two different names are taken for one with a
chance below 1e-12 even at a hundred million on each side.

A name with a slash is a member path (a leading "./" or "/" does not matter), one without is a base name and stands
for every member called so. Letters with marks are the same in one character (NFC) and in two (NFD, as macOS has them).
"""

import codecs
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from dinov2.data.hidden import in_hidden, is_hidden
from dinov2.data.tables import file_problem
from dinov2.data.tar_index.errors import SelectionError, show_name

LINES_BYTES = 1 << 20
FEW_PATHS = 64


@dataclass(frozen=True)
class _Sorted:
    """Names of one sort (base names or paths), ordered by hash.

    Attributes:
        keys: (n,) int64 hashes, ascending; equal names stand next to each other, in the order of the table.
        checks: (n,) uint32 CRC-32 of the same names.
        rows: (n,) int32 or int64, their rows in the table.
    """

    keys: NDArray[np.int64]
    checks: NDArray[np.uint32]
    rows: NDArray[np.signedinteger]

    def find(self, names: list[bytes]) -> NDArray[np.signedinteger]:
        """Row of each name, (len(names),); -1 where the table does not have it."""
        if not len(self.keys) or not names:
            return np.full(len(names), -1)
        keys, checks = hash_names(composed(names))
        order = np.argsort(keys)  # neighbouring look-ups then touch neighbouring memory
        places = np.empty(len(names), np.int64)
        places[order] = np.searchsorted(self.keys, keys[order])
        places[places == len(self.keys)] = 0
        found = (self.keys[places] == keys) & (self.checks[places] == checks)
        return np.where(found, self.rows[places], -1)


class NameTable:
    """Names in the order of their file, with the number of members that each one matched.

    Attributes:
        hits: (n,) uint32, how many members each name stands for so far; of equal names only the first counts.
    """

    def __init__(self, chunks: Iterable[list[bytes]]):
        parts = [(*hash_names(matched_as(names)), _are_paths(names)) for names in chunks]
        parts = parts or [(*hash_names([]), np.zeros(0, bool))]
        keys, checks, are_paths = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        del parts
        self._bases = _sort(keys, checks, ~are_paths)
        self._paths = _sort(keys, checks, are_paths)
        self.hits = np.zeros(len(keys), np.uint32)

    def __len__(self) -> int:
        return len(self.hits)

    def find(
        self, plain: list[bytes], bases: list[bytes], *, counted: NDArray[np.bool_]
    ) -> tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]:
        """Rows that name each member: by its base name and by its path.

        Args:
            plain: (m) member paths as they are unpacked.
            bases: (m) their base names.
            counted: (m,) whether the member is a tile and so adds to `hits`.
        Returns:
            Two arrays (m,), -1 where no row does.
        """
        by_base = self._bases.find(bases)
        by_path = self._paths.find(plain)
        for rows in (by_base, by_path):
            matched = rows[(rows >= 0) & counted].astype(np.intp)
            np.add.at(self.hits, matched, np.ones(len(matched), np.uint32))  # a plain 1 would be twenty times slower
        return by_base, by_path

    def repeated(self) -> Iterator[tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]]]:
        """Pairs of rows with the same name: arrays (m,) of the earlier and of the later row."""
        for table in (self._bases, self._paths):
            same = (table.keys[1:] == table.keys[:-1]) & (table.checks[1:] == table.checks[:-1])
            yield table.rows[:-1][same], table.rows[1:][same]

    def unmatched(self) -> NDArray[np.int64]:
        """Rows that no member answers to; a repeated name counts once."""
        later = [pair[1] for pair in self.repeated()]
        missing = self.hits == 0
        missing[np.concatenate(later)] = False
        return np.flatnonzero(missing)


class SplitPaths(NamedTuple):
    """What a chunk's paths (n) say.

    Attributes:
        bases: (n) what stands after the last slash.
        plain: (n) the paths as they are unpacked.
        hidden: (n,) whether a part of the path is hidden.
    """

    bases: list[bytes]
    plain: list[bytes]
    hidden: NDArray[np.bool_]


def split_paths(paths: list[bytes]) -> SplitPaths:
    """Tell the parts of many paths. Neighbours share a folder as a rule, so folders are judged, not paths."""
    runs = list(_runs(paths)) if paths else []
    bases = [base for _, run in runs for base in run]
    judged = [_judge_folder(folder) for folder, _ in runs]
    plain = paths
    if any(folder + b"/" != start for (folder, _), (start, _) in zip(runs, judged, strict=True)):
        plain = [start + base for (_, run), (start, _) in zip(runs, judged, strict=True) for base in run]
    hidden = np.repeat([is_in for _, is_in in judged], [len(run) for _, run in runs]).astype(bool)
    if b"\0." in b"\0".join([b"", *bases]):
        hidden |= np.fromiter((is_hidden(base.decode("latin-1")) for base in bases), bool, len(bases))
    return SplitPaths(bases, plain, hidden)


def _runs(paths: list[bytes]) -> Iterator[tuple[bytes, list[bytes]]]:
    """Folder and base names of neighbours in one folder. Cutting a known folder off is the fastest way to a base."""
    if len(paths) <= FEW_PATHS:
        split = [path.rpartition(b"/") for path in paths]
        for folder, run in groupby(split, key=itemgetter(0)):
            yield folder, [base for _, _, base in run]
        return
    folder = paths[0].rpartition(b"/")[0]
    if folder and paths[-1].startswith(folder):
        bases = [path.removeprefix(folder + b"/") for path in paths]
        joined = b"".join(bases)
        if b"/" not in joined and len(joined) + len(paths) * (len(folder) + 1) == len(b"".join(paths)):
            yield folder, bases
            return
    yield from _runs(paths[: len(paths) // 2])
    yield from _runs(paths[len(paths) // 2 :])


@lru_cache(4096)
def _judge_folder(folder: bytes) -> tuple[bytes, bool]:
    """How the plain paths in a folder begin, and whether it is hidden."""
    plain = plain_path(folder)
    return plain + b"/" if plain else b"", in_hidden(plain.decode("utf-8", "surrogateescape"))


def plain_path(path: bytes) -> bytes:
    """The path as it is unpacked: without "/" or "./" in front, "//" and "/./"."""
    return b"/".join(part for part in path.split(b"/") if part not in (b"", b"."))


def matched_as(names: list[bytes]) -> list[bytes]:
    """The names of a list or table as they are looked for: plain and composed."""
    if b"/" in b"".join(names):
        names = list(map(plain_path, names))
    return composed(names)


def composed(names: list[bytes]) -> list[bytes]:
    """The names with marks and letters in one character (NFC); what is not UTF-8 stays as it is."""
    if b"".join(names).isascii():
        return names
    return [
        unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape")).encode("utf-8", "surrogateescape")
        for name in names
    ]


def read_list(path: str | Path) -> Iterator[list[bytes]]:
    """The names of a text file, one a line, in chunks, without blanks around them, blank lines and byte-order mark."""
    try:
        if problem := file_problem(Path(path)):
            kind = problem.partition(":")[0]
            raise SelectionError(
                f"the list {show_name(path)} {kind}: expected UTF-8 text, one base name or member path a line."
            )
        with open(path, "rb") as file:
            if file.read(3) != b"\xef\xbb\xbf":
                file.seek(0)
            while lines := file.readlines(LINES_BYTES):
                yield [line for line in (line.strip() for line in lines) if line]
    except OSError as error:
        raise SelectionError(f"the list {show_name(path)} cannot be read: {error.strerror or error}.") from error


def encoding_hint(path: str | Path) -> str:
    """What to tell about a list or table whose names do not match: that they are not in UTF-8, or nothing."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        with open(path, "rb") as file:
            while data := file.read(LINES_BYTES):
                decoder.decode(data)
    except UnicodeDecodeError:
        return (
            f" {show_name(path)} is not in UTF-8, as names in tars are: save it again with that encoding "
            "(iconv -f latin1 -t utf-8, or CSV UTF-8 in Excel)"
        )
    return ""


def hash_names(names: list[bytes]) -> tuple[NDArray[np.int64], NDArray[np.uint32]]:
    """Two independent numbers of each name, each (n,)."""
    keys = np.fromiter(map(hash, names), np.int64, len(names))
    checks = np.fromiter(map(zlib.crc32, names), np.uint32, len(names))
    return keys, checks


def _are_paths(names: list[bytes]) -> NDArray[np.bool_]:
    if b"/" not in b"\0".join(names):
        return np.zeros(len(names), bool)
    return np.fromiter((b"/" in name for name in names), bool, len(names))


def _sort(keys: NDArray[np.int64], checks: NDArray[np.uint32], chosen: NDArray[np.bool_]) -> _Sorted:
    """The chosen rows by hash; row numbers are halved to int32 where they fit, since a table can have 10^8."""
    rows = np.flatnonzero(chosen)
    own = keys if len(rows) == len(keys) else keys[rows]
    order = np.argsort(own)
    if (own[order[1:]] == own[order[:-1]]).any():
        order = np.argsort(own, kind="stable")  # twice as slow, but leaves equal names in their order
    rows = rows[order]
    rows = rows.astype(np.int32) if len(keys) < 2**31 else rows
    return _Sorted(keys[rows], checks[rows], rows)
