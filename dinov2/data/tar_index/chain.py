"""Follows the chain of headers through a tar: each size says where the next header lies.

The walk is optimistic and in batches. It takes sizes from headers that nobody has checked yet, gathers 2,048
of them, and only then verifies all checksums at once with NumPy. The first bad header of a batch ends the
walk with its offset, so nothing read after it counts. Small members are read through 256 KiB windows; of large
ones only the headers are read.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index import headers
from dinov2.data.tar_index.errors import ArchiveError, show_name
from dinov2.data.tar_index.extensions import Extension, refuse_global, unknown_kind
from dinov2.data.tar_index.headers import BLOCK, REGULAR, TYPE_BYTE, ZERO_BLOCK

BATCH = 2048
FEW_HEADERS = 8
NEAR_WINDOW, FAR_WINDOW = 1 << 18, 4 * BLOCK  # bytes; the near one fits into the cache of a core
FAR_STRIDE = 8 << 10  # bytes from header to header; above, reading headers one by one is faster than reading all
LARGEST_EXTENSION = 1 << 20
BATCH_EXTENSIONS = 8 << 20  # bytes of extended headers that close a batch, however few members it has
KNOWN_SIZES = 1 << 16
MAKE_AGAIN = "Make the archive again (tar -chf), or copy it again"
COPY_AGAIN = (
    "Copy or download it again, and compare the sizes; a tar that was being made when the disk was full, or a job "
    "ended, has to be made again; volumes of a tar -M have to be unpacked together"
)
BAD_CHECKSUM = "its checksum is wrong, so it is damaged or is not a header"
SIZE_START, SIZE_STOP = headers.SIZE_FIELD.start, headers.SIZE_FIELD.stop


@dataclass
class Batch:
    """Headers in archive order; extension headers are among them.

    Attributes:
        first: offset of the first header, bytes.
        store: room for the headers, which the next batch uses again.
        sizes: (n) data bytes after each header.
        extensions: what belongs to the header of that index.
        fault: why the walk cannot go on after the last header.
        ended: whether the end marker follows.
        extension_bytes: how much extended headers hold, which is what can make a batch large.
    """

    first: int
    store: memoryview
    sizes: list[int] = field(default_factory=list)
    extensions: dict[int, Extension] = field(default_factory=dict)
    fault: ArchiveError | None = None
    ended: bool = False
    extension_bytes: int = 0

    @property
    def stopped(self) -> bool:
        """Whether the walk ends with this batch, well or badly."""
        return self.ended or self.fault is not None

    def add(self, buffer: bytes, *, offset: int, count: int) -> None:
        """Keep the last `count` headers from `buffer`; the first of them lies at `offset`, a multiple of 512."""
        place, sizes = len(self.sizes) - count, self.sizes[len(self.sizes) - count :]
        if count < FEW_HEADERS:
            for size in sizes:
                self.store[place * BLOCK : (place + 1) * BLOCK] = buffer[offset : offset + BLOCK]
                place, offset = place + 1, offset + _stride(size)
            return
        whole = len(buffer) // BLOCK
        table = np.frombuffer(buffer, np.uint8, whole * BLOCK).reshape(whole, BLOCK)
        strides = _strides(np.array(sizes, np.int64)) // BLOCK
        table.take(offset // BLOCK + np.cumsum(strides) - strides, axis=0, out=self.blocks()[place:])

    def blocks(self) -> NDArray[np.uint8]:
        """The headers, (n, 512) uint8."""
        return np.frombuffer(self.store, np.uint8, len(self.sizes) * BLOCK).reshape(-1, BLOCK)

    def places(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Offset of each header (n,) int64 and data bytes after it (n,) int64."""
        sizes = np.array(self.sizes, np.int64)
        strides = _strides(sizes)
        return self.first + np.cumsum(strides) - strides, sizes


def _stride(size: int) -> int:
    """Bytes from a header to the next one: the header itself and the data, padded to whole blocks."""
    return (size + 2 * BLOCK - 1) & -BLOCK


def _strides(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """`_stride` of many, (n,) int64."""
    return (sizes + (2 * BLOCK - 1)) & -BLOCK


class HeaderChain:
    """All headers of one open tar, in batches, each checked before it is handed out."""

    def __init__(self, descriptor: int, *, path: str):
        self.path = path
        self.size = os.fstat(descriptor).st_size
        self.position = 0
        self._descriptor = descriptor
        self._buffer, self._base, self._window = b"", 0, NEAR_WINDOW
        room = min(BATCH * BLOCK, self.size) + max(NEAR_WINDOW, FAR_WINDOW)  # a window may fill a batch beyond its end
        self._store = memoryview(bytearray(room))
        self._known_sizes: dict[bytes, int] = {}
        self._pending: Extension | None = None

    def __iter__(self) -> Iterator[Batch]:
        ended = False
        while not ended:
            batch = self._gather()
            self._verify(batch)
            if batch.fault is not None:
                raise batch.fault
            ended = batch.ended
            self._adapt(batch)
            yield batch

    def _gather(self) -> Batch:
        """The next headers, unverified, until the batch is full, the archive ends or something is wrong."""
        batch = Batch(self.position, self._store)
        while len(batch.sizes) < BATCH and batch.extension_bytes < BATCH_EXTENSIONS and not batch.stopped:
            if self._window == FAR_WINDOW:
                self._leap(batch)
            if self._load(batch):
                self._follow(batch)
        return batch

    def _load(self, batch: Batch) -> bool:
        """Have the next header in the window; False, with the fault noted, where the file ends before it."""
        if self.position + BLOCK > self.size:
            batch.fault = self._truncation(batch)
            return False
        if not self._base <= self.position <= self._base + len(self._buffer) - BLOCK:
            self._buffer, self._base = os.pread(self._descriptor, self._window, self.position), self.position
            if len(self._buffer) < BLOCK:
                batch.fault = self.error(self.position, "the file became shorter while it was read")
                return False
        return True

    def _follow(self, batch: Batch) -> None:
        """Hop from header to header inside the window. The loop that all speed depends on."""
        buffer, known, sizes = self._buffer, self._known_sizes, batch.sizes
        first, before = self.position - self._base, len(sizes)
        offset, last = first, len(buffer) - BLOCK
        careful = self._pending is not None
        while offset <= last:
            size = known.get(buffer[offset + SIZE_START : offset + SIZE_STOP])
            if size is None or buffer[offset + TYPE_BYTE] != REGULAR or careful:
                size = self._read_unusual(buffer[offset : offset + BLOCK], self._base + offset, batch)
                if size is None:
                    break
                careful = self._pending is not None
            sizes.append(size)
            offset += (size + 1023) & -512
        batch.add(buffer, offset=first, count=len(sizes) - before)
        self.position = self._base + offset

    def _leap(self, batch: Batch) -> None:
        """Read single headers of large members, as long as they are plain files; `_follow` takes what is not."""
        read, descriptor, known, sizes, store = os.pread, self._descriptor, self._known_sizes, batch.sizes, batch.store
        position, last, field, kind = self.position, self.size - BLOCK, headers.SIZE_FIELD, TYPE_BYTE
        for _ in range(0 if self._pending else BATCH - len(sizes)):
            block = read(descriptor, BLOCK, position) if position <= last else b""
            size = known.get(block[field])
            if size is None or len(block) < BLOCK or block[kind] != REGULAR:
                break
            store[len(sizes) * BLOCK : (len(sizes) + 1) * BLOCK] = block
            sizes.append(size)
            position += (size + 1023) & -512
        self.position = position

    def _read_unusual(self, block: bytes, position: int, batch: Batch) -> int | None:
        """Data bytes after a header that the fast loop does not know; None where the walk stops."""
        if block == ZERO_BLOCK:
            batch.fault = self._check_end(position)
            batch.ended = True
            return None
        try:
            return self._size_of(block, position, batch)
        except ValueError as reason:
            damaged = not headers.checksums_match(np.frombuffer(block, np.uint8)[None])[0]
            batch.fault = self.error(position, *((BAD_CHECKSUM,) if damaged else reason.args))
            return None

    def _size_of(self, block: bytes, position: int, batch: Batch) -> int:
        """Strict reading of one header; ValueError with the reason."""
        kind, number = block[TYPE_BYTE], block[SIZE_START:SIZE_STOP]
        size = self._known_sizes.get(number)
        if size is None:
            size = self._remember(number, headers.parse_size(number))
        if kind in headers.EXTENSION_KINDS:
            self._read_extension(kind, size, position)
            batch.extension_bytes += size
            return size
        pending, self._pending = self._pending, None
        if pending is not None:
            batch.extensions[len(batch.sizes)] = pending
            size = size if pending.size is None else pending.size
        if kind == REGULAR:
            return size
        if kind in headers.WITHOUT_DATA and size:
            raise ValueError(
                f"it is a link, folder or device that claims {size:,} bytes of data, which tools read in different ways"
            )
        if kind not in headers.REGULAR_KINDS and kind != headers.HARD_LINK and kind not in headers.SKIPPED_KINDS:
            raise ValueError(*unknown_kind(kind))
        return size

    def _remember(self, number: bytes, size: int) -> int:
        """Keep what a size field means: tiles repeat a few ten thousand sizes, and looking up is fast."""
        if len(self._known_sizes) >= KNOWN_SIZES:
            self._known_sizes.clear()
        self._known_sizes[number] = size
        return size

    def _read_extension(self, kind: int, size: int, position: int) -> None:
        """Take in a GNU long name or a pax header; it belongs to the next member."""
        if size > LARGEST_EXTENSION:
            raise ValueError(f"its extended header claims {size:,} bytes, more than {LARGEST_EXTENSION:,}")
        at = position + BLOCK - self._base
        payload = self._buffer[at : at + size]
        if len(payload) < size:
            payload = os.pread(self._descriptor, size, position + BLOCK)
        if len(payload) < size:
            raise ValueError("the file ends inside its extended header")
        if kind == headers.PAX_GLOBAL:
            refuse_global(payload)
            return
        pending = self._pending or Extension()
        letter = chr(kind) if kind in (headers.LONG_NAME, headers.LONG_TARGET) else "x"
        if pending.kinds and (letter in pending.kinds or "x" in pending.kinds + letter):
            raise ValueError("two extended headers in a row say different things about the next member")
        pending.kinds += letter
        pending.take_in(payload, letter)
        self._pending = pending

    def _verify(self, batch: Batch) -> None:
        """Raise for the first header of the batch whose checksum is wrong."""
        wrong = np.flatnonzero(~headers.checksums_match(batch.blocks()))
        if len(wrong):
            positions, _ = batch.places()
            raise self.error(int(positions[wrong[0]]), BAD_CHECKSUM)

    def _adapt(self, batch: Batch) -> None:
        """Choose the window for the stride seen."""
        stride = (self.position - batch.first) // max(1, len(batch.sizes))
        self._window = FAR_WINDOW if stride > FAR_STRIDE else NEAR_WINDOW

    def _truncation(self, batch: Batch) -> ArchiveError:
        """Which of two truncations the end of the file is: inside a member's data or before the end marker."""
        if self.position > self.size and batch.sizes:
            positions, sizes = batch.places()
            reason = f"its {int(sizes[-1]):,} bytes of data reach past the end of the file at byte {self.size:,}"
            return self.error(int(positions[-1]), f"{reason}: the archive is truncated", COPY_AGAIN)
        reason = "the file ends without the two zero blocks that close a tar: the archive is truncated"
        return self.error(self.position, reason, COPY_AGAIN)

    def _check_end(self, position: int) -> ArchiveError | None:
        """What is wrong from the first zero block on: nothing, a lone zero block or data after the end."""
        if self._pending is not None:
            return self.error(position, "an extended header is followed by no member")
        at, zeros = position, 0
        while at < self.size:
            data = os.pread(self._descriptor, NEAR_WINDOW, at)
            if not data:
                break
            first = len(data) - len(data.lstrip(b"\0"))
            zeros += first
            if first < len(data):
                return self._data_after_zeros(position, zeros)
            at += len(data)
        if zeros < 2 * BLOCK:
            reason = "only one zero block closes the tar, two are needed: the archive is truncated"
            return self.error(position, reason, COPY_AGAIN)
        return None

    def _data_after_zeros(self, position: int, zeros: int) -> ArchiveError:
        if zeros < 2 * BLOCK:
            return self.error(
                position, "a zero block lies where a header is expected: the header is lost or the archive damaged"
            )
        reason = (
            f"after the end marker there is more data at byte {position + zeros:,}: another archive appended with cat?"
        )
        return self.error(
            position, f"{reason} Its members would be lost; use tar --concatenate, or ignore-zeros to unpack it"
        )

    def error(self, position: int, reason: str, remedy: str = MAKE_AGAIN) -> ArchiveError:
        """An `ArchiveError` that names the archive and the header's place in it."""
        return ArchiveError(
            f"{show_name(self.path)} cannot be indexed: header at byte {position:,} (block {position // BLOCK:,}): "
            f"{reason}. Nothing was indexed, since every tile after it could be wrong. {remedy}."
        )
