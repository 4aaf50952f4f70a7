"""Finds files whose path occurs again later in the archive, as `tar -u`, `-r` and `-A` leave it: the last one counts.

So it is when unpacking, where a later folder, link or pipe of that name takes a file's place as well. The 64-bit hash
of every path goes into a temporary file, which is sorted in pieces, so that memory does not grow with the archive. Only
where a hash occurs twice are the headers walked again, to tell of which files.
"""

from collections.abc import Iterator
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.names import hash_names, plain_path

SORTED_AT_ONCE = 1 << 20
READ_BYTES = 1 << 20
NO_FILE = np.iinfo(np.int64).min  # in place of the number of a member that is no file


class SeenPaths:
    """The hashes of all paths of an archive, kept in a file that is open and empty."""

    def __init__(self, file: BinaryIO):
        self._file, self._count = file, 0

    def add(self, chunk: MemberChunk) -> None:
        """Take in the next members."""
        paths = [*chunk.plain, *(plain_path(path) for _, path in chunk.others)]
        self._file.write(np.fromiter(map(hash, paths), np.int64, len(paths)).tobytes())
        self._count += len(paths)

    def replaced(self, members: Members) -> NDArray[np.int64]:
        """Numbers of the files whose path comes again, ascending, as the index counts files."""
        repeated = np.concatenate(list(self._repeated()))
        if not len(repeated):
            return repeated
        keys, checks, numbers = _occurrences(members, repeated)
        order = np.lexsort((checks, keys))  # stable: of equal paths the last in the archive comes last
        keys, checks, numbers = keys[order], checks[order], numbers[order]
        again = (keys[1:] == keys[:-1]) & (checks[1:] == checks[:-1]) & (numbers[:-1] != NO_FILE)
        return np.sort(numbers[:-1][again])

    def _repeated(self) -> Iterator[NDArray[np.int64]]:
        """Hashes that occur more than once, from one range of values after the other."""
        at_once = max(SORTED_AT_ONCE, self._count >> 4)  # the file is read again for each range
        bits = max(0, (self._count - 1) // at_once).bit_length()
        for part in range(1 << bits):
            keys = np.concatenate([np.zeros(0, np.uint64), *self._read(part, bits)])
            keys.sort()
            yield keys[1:][keys[1:] == keys[:-1]].view(np.int64)

    def _read(self, part: int, bits: int) -> Iterator[NDArray[np.uint64]]:
        self._file.seek(0)
        while data := self._file.read(READ_BYTES):
            keys = np.frombuffer(data, np.uint64)
            yield keys[keys >> np.uint64(64 - bits) == part] if bits else keys


def _occurrences(
    members: Members, wanted: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.uint32], NDArray[np.int64]]:
    """Hash, CRC-32 and file number of each member with one of these hashes, in archive order."""
    found, regular, links = [], 0, 0
    for chunk in members:
        is_link = np.zeros(len(chunk.paths), bool)
        is_link[list(chunk.targets)] = True
        order = np.where(is_link, -links - np.cumsum(is_link), regular - 1 + np.cumsum(~is_link))  # link i is -1 - i
        paths, numbers = list(chunk.plain), order.tolist()
        for place, path in reversed(chunk.others):
            paths.insert(place, plain_path(path))
            numbers.insert(place, NO_FILE)
        keys, checks = hash_names(paths)
        chosen = np.isin(keys, wanted)
        found.append((keys[chosen], checks[chosen], np.array(numbers, np.int64)[chosen]))
        links += len(chunk.targets)
        regular += len(chunk.paths) - len(chunk.targets)
    keys, checks, numbers = (np.concatenate(column) for column in zip(*found, strict=True))
    is_link = (numbers < 0) & (numbers != NO_FILE)
    numbers[is_link] = regular - 1 - numbers[is_link]
    return keys, checks, numbers
