"""Hard links: members without data of their own, which `tar -chf` writes for the second symbolic link to a file.

A link means the file that its target's name had last been given before the link in the archive, as when
unpacking. Finding it takes a second walk, since keeping every name of the first would cost memory for a case
that most archives do not have. Only archives with links pay.
"""

from array import array
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import ArchiveError, show_name
from dinov2.data.tar_index.headers import BLOCK
from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.names import hash_names, plain_path
from dinov2.data.tar_index.progress import byte_progress
from dinov2.data.tar_index.replaced import SeenPaths


def regular_then_links(members: Members, *, title: str, seen: SeenPaths | None = None) -> Iterator[MemberChunk]:
    """All members in the order of their file numbers, hard links with the places of their targets.

    Args:
        title: of the progress bar.
        seen: takes the paths.
    """
    links, count = HardLinks(), 0
    with byte_progress(members.size, title=title) as advance:
        for chunk in members:
            if seen is not None:
                seen.add(chunk)
            regular = links.take_out(chunk)
            count += len(regular.paths)
            yield regular
            advance(chunk.position, count)
    if links:
        with byte_progress(members.size, title=f"{title}: hard links") as advance:
            for chunk in links.resolve(members):
                count += len(chunk.paths)
                yield chunk
                advance(chunk.position, count)


class HardLinks:
    """Collects the targets of links in a first walk and resolves the links in a second one."""

    def __init__(self) -> None:
        self._wanted = array("q")

    def __bool__(self) -> bool:
        return len(self._wanted) > 0

    def take_out(self, chunk: MemberChunk) -> MemberChunk:
        """The chunk without its links; what they refer to is remembered."""
        if not chunk.targets:
            return chunk
        self._wanted.extend(hash_names(list(map(plain_path, chunk.targets.values())))[0].tolist())
        return _subset(chunk, [i for i in range(len(chunk.paths)) if i not in chunk.targets])

    def resolve(self, members: Members) -> Iterator[MemberChunk]:
        """Walk again and yield the links only, each with the place of its target's data.

        Raises:
            ArchiveError: the target is not in the archive, or only after the link.
        """
        places = _Places(np.unique(np.frombuffer(self._wanted, np.int64)))
        for chunk in members:
            places.visit(chunk, members.path)
            links = _subset(chunk, sorted(chunk.targets))
            yield MemberChunk(links.paths, links.starts, links.sizes, {}, chunk.position)


class _Places:
    """Where the data of every wanted name lie, as of the member visited last.

    Attributes:
        keys: (w,) int64 hashes of the wanted names, ascending.
        checks: (w,) uint32 CRC-32 of the same names.
        starts, sizes: (w,) int64; a start of 0 means not seen yet.
    """

    def __init__(self, keys: NDArray[np.int64]):
        self.keys = keys
        self.checks = np.zeros(len(keys), np.uint32)
        self.starts = np.zeros(len(keys), np.int64)
        self.sizes = np.zeros(len(keys), np.int64)

    def visit(self, chunk: MemberChunk, archive: str) -> None:
        """Go through a chunk in order: files put down their place, links take that of their target into the chunk."""
        keys, checks = hash_names(chunk.plain)
        places = np.minimum(np.searchsorted(self.keys, keys), len(self.keys) - 1)
        wanted = np.flatnonzero(self.keys[places] == keys).tolist()
        for i in sorted({*wanted, *chunk.targets}):
            if i in chunk.targets:
                self._follow(chunk, i, archive)
            if self.keys[places[i]] == keys[i]:
                self.checks[places[i]], self.starts[places[i]], self.sizes[places[i]] = (
                    checks[i],
                    chunk.starts[i],
                    chunk.sizes[i],
                )

    def _follow(self, chunk: MemberChunk, i: int, archive: str) -> None:
        target = chunk.targets[i]
        keys, checks = hash_names([plain_path(target)])
        place = int(np.searchsorted(self.keys, keys[0]))
        if not self.starts[place] or self.checks[place] != checks[0]:
            header = int(chunk.starts[i]) - BLOCK
            raise ArchiveError(
                f"{show_name(archive)} cannot be indexed: header at byte {header:,} (block {header // BLOCK:,}): "
                f"{show_name(chunk.paths[i])} is a hard link to {show_name(target)}, which is not in the archive "
                "before it. Make the archive again with all files (tar -chf)."
            )
        chunk.starts[i], chunk.sizes[i] = self.starts[place], self.sizes[place]


def _subset(chunk: MemberChunk, keep: list[int]) -> MemberChunk:
    """The members at these positions, without targets."""
    return MemberChunk([chunk.paths[i] for i in keep], chunk.starts[keep], chunk.sizes[keep], {}, chunk.position)
