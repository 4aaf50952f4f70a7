"""Members of a tar as chunks of arrays and names: what the index is built from.

Only what can become a tile is kept: regular files and hard links. Everything else is counted by kind. Memory
holds one chunk of at most 2,048 members, whatever the length of the archive.
"""

import os
import stat
from collections import Counter
from collections.abc import Iterator, Set
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index import headers
from dinov2.data.tar_index.chain import Batch, HeaderChain
from dinov2.data.tar_index.errors import ArchiveError, show_name
from dinov2.data.tar_index.headers import BLOCK
from dinov2.data.tar_index.names import SplitPaths, split_paths

NAME, TARGET, MAGIC, PREFIX = slice(0, 100), slice(157, 257), slice(257, 263), slice(345, 500)
POSIX_MAGIC = b"ustar\0"


@dataclass(frozen=True)
class MemberChunk:
    """Regular files and hard links, in archive order.

    Attributes:
        paths: (n) names as stored, without a trailing slash.
        starts: (n,) int64, byte at which the data begin.
        sizes: (n,) int64, bytes; 0 for hard links.
        targets: name that the hard link at that position refers to; all other positions are regular files.
        position: bytes of the archive walked so far.
        others: folders, symbolic links and the like, each with the position in `paths` that it stands before.
    """

    paths: list[bytes]
    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    targets: dict[int, bytes]
    position: int
    others: tuple[tuple[int, bytes], ...] = ()

    @cached_property
    def _split(self) -> SplitPaths:
        return split_paths(self.paths)

    @property
    def bases(self) -> list[bytes]:
        """(n) what stands after the last slash of each path."""
        return self._split.bases

    @property
    def plain(self) -> list[bytes]:
        """(n) the paths as they are unpacked, without "./" and the like."""
        return self._split.plain

    @property
    def hidden(self) -> NDArray[np.bool_]:
        """(n,) whether a part of the path is hidden; see `dinov2.data.hidden`."""
        return self._split.hidden


class Members:
    """The members of the tar at `path`; iterating walks the whole archive or raises `ArchiveError`.

    Attributes:
        size: bytes of the file.
        skipped: how many members of each kind were left out so far, for example {"folders": 3}.
    """

    def __init__(self, path: str | Path):
        self.path = os.fspath(path)
        self.size = _checked_size(self.path)
        self.skipped: Counter[str] = Counter()

    def __iter__(self) -> Iterator[MemberChunk]:
        self.skipped.clear()
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            chain = HeaderChain(descriptor, path=self.path)
            for batch in chain:
                if batch.sizes:
                    yield self._chunk(batch, chain.position)
        finally:
            os.close(descriptor)

    def _chunk(self, batch: Batch, position: int) -> MemberChunk:
        blocks, (offsets, sizes) = batch.blocks(), batch.places()
        kinds = blocks[:, headers.TYPE_BYTE].copy()
        self._count_skipped(kinds)
        rows = np.flatnonzero(_is_kind(kinds, {*headers.REGULAR_KINDS, headers.HARD_LINK}))
        paths = _paths(blocks, rows, batch)
        links = np.flatnonzero(kinds[rows] == headers.HARD_LINK)
        targets = {int(i): _target(blocks[rows[i]], int(rows[i]), batch) for i in links}
        if (kinds == headers.OLD_REGULAR).any():
            rows, paths, targets = self._without_old_folders(kinds, rows, paths, targets)
        if b"/\0" in b"\0".join([*paths, b""]):
            paths = [path.rstrip(b"/") for path in paths]
        others = np.flatnonzero(_is_kind(kinds, headers.NAMED_KINDS))
        named = zip(np.searchsorted(rows, others).tolist(), _paths(blocks, others, batch), strict=True)
        return MemberChunk(paths, offsets[rows] + BLOCK, sizes[rows], targets, position, tuple(named))

    def _count_skipped(self, kinds: NDArray[np.uint8]) -> None:
        counts = np.bincount(kinds, minlength=256)
        for kind, name in headers.SKIPPED_KINDS.items():
            if counts[kind]:
                self.skipped[name] += int(counts[kind])

    def _without_old_folders(
        self, kinds: NDArray[np.uint8], rows: NDArray[np.intp], paths: list[bytes], targets: dict[int, bytes]
    ) -> tuple[NDArray[np.intp], list[bytes], dict[int, bytes]]:
        """Tars from before 1988 mark a folder only by the slash at the end of its name."""
        keep = [
            i for i, path in enumerate(paths) if not (kinds[rows[i]] == headers.OLD_REGULAR and path.endswith(b"/"))
        ]
        if len(keep) < len(paths):
            self.skipped["folders"] += len(paths) - len(keep)
        moved = {old: new for new, old in enumerate(keep)}
        return rows[keep], [paths[i] for i in keep], {moved[i]: target for i, target in targets.items()}


def _checked_size(path: str) -> int:
    """Bytes of an ordinary, uncompressed file."""
    try:
        status = Path(path).stat()
    except OSError as error:
        raise ArchiveError(f"{show_name(path)} cannot be opened: {error.strerror}. Check --tarball_path.") from error
    if stat.S_ISDIR(status.st_mode):
        raise ArchiveError(
            f"{show_name(path)} is a folder, not a tar. All tars in it are indexed by scripts/infer_entries_loop.py "
            "--source; a folder of images is packed by scripts/prepare_dataset.py --images."
        )
    if not stat.S_ISREG(status.st_mode):
        raise ArchiveError(
            f"{show_name(path)} is not an ordinary file: expected a .tar on disk, where tiles have offsets."
        )
    with open(path, "rb") as file:
        _refuse_other_files(path, file.read(BLOCK))
    return status.st_size


def _refuse_other_files(path: str, head: bytes) -> None:
    """Tell by the first block what a file is that is not a tar."""
    if len(head) == BLOCK and headers.checksums_match(np.frombuffer(head, np.uint8)[None])[0]:
        return
    for magic, (kind, remedy) in headers.OTHER_FILES.items():
        if head.startswith(magic):
            raise ArchiveError(f"{show_name(path)} is {kind}, not a tar: {remedy}.")
    for magic, (name, tool) in headers.COMPRESSIONS.items():
        if head.startswith(magic):
            raise ArchiveError(
                f"{show_name(path)} is compressed with {name} (at byte 0, block 0): "
                f"tiles cannot be read at offsets inside it. Unpack it once ({tool}) and index the plain .tar."
            )


def _is_kind(kinds: NDArray[np.uint8], wanted: Set[int]) -> NDArray[np.bool_]:
    """(n,) bool: whether each type byte is among the wanted ones."""
    table = np.zeros(256, bool)
    table[list(wanted)] = True
    return table[kinds]


def _paths(blocks: NDArray[np.uint8], rows: NDArray[np.intp], batch: Batch) -> list[bytes]:
    """Full names of the given headers.

    Args:
        blocks: (m, 512) uint8, all headers of the batch.
        rows: (n,) indices of those whose names are wanted.
    """
    paths = _text(blocks[rows, NAME])
    for i in np.flatnonzero(blocks[rows, PREFIX.start]):
        if blocks[rows[i], MAGIC].tobytes() == POSIX_MAGIC:
            paths[i] = _text(blocks[rows[i], None, PREFIX])[0] + b"/" + paths[i]
    if batch.extensions:
        index_of = {int(row): i for i, row in enumerate(rows)}
        for row, extension in batch.extensions.items():
            if extension.path is not None and row in index_of:
                paths[index_of[row]] = extension.path
    return paths


def _text(fields: NDArray[np.uint8]) -> list[bytes]:
    """What stands before the first NUL of each field.

    Args:
        fields: (n, width) uint8.
    """
    texts: list[bytes] = np.ascontiguousarray(fields).view(f"S{fields.shape[1]}").ravel().tolist()
    if b"\0" in b"".join(texts):
        texts = [text.partition(b"\0")[0] for text in texts]
    return texts


def _target(block: NDArray[np.uint8], row: int, batch: Batch) -> bytes:
    """The name that a hard link refers to."""
    extension = batch.extensions.get(row)
    if extension is not None and extension.target is not None:
        return extension.target
    return _text(block[None, TARGET])[0]
