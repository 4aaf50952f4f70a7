"""Reads stretches of tiles and says what is wrong with each; this part of verification runs in worker processes.

A tile is right if its bytes are all there, have the CRC-32 that was recorded, and decode as an image of an
allowed format and size.
"""

import json
import os
import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.headers import BLOCK
from dinov2.errors import UserError


@dataclass(frozen=True)
class Problem:
    """One bad tile.

    Attributes:
        kind: "place" (the row is no member's data), "bytes" (cut or changed since) or "image" (does not decode).
    """

    tar: str
    row: int
    name: str
    start: int
    end: int
    kind: str
    reason: str

    def json(self) -> str:
        """One line of JSON."""
        return json.dumps(self.__dict__, ensure_ascii=True)


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of one tar.

    Attributes:
        first: row of the first one in the entries.
        places: (n, 2) int64, start and end byte of each.
        crc: (n,) uint32 recorded values, or None.
        decode: whether to decode the images too.
        max_pixels: of an image; None for the default of training.
    """

    tar: str
    first: int
    places: NDArray[np.int64]
    crc: NDArray[np.uint32] | None
    decode: bool
    max_pixels: int | None = None


def check_stretch(stretch: Stretch) -> tuple[NDArray[np.uint32], list[Problem]]:
    """CRC-32 of each tile, (n,) uint32, and the bad ones."""
    values = np.zeros(len(stretch.places), np.uint32)
    problems = []
    descriptor = os.open(stretch.tar, os.O_RDONLY)
    try:
        for i, (start, end) in enumerate(stretch.places.tolist()):
            data, unreadable = _read(descriptor, start, end)
            values[i] = zlib.crc32(data)
            kind, reason = "bytes", unreadable
            if reason is None:
                reason = _changed(data, end - start, None if stretch.crc is None else int(stretch.crc[i]))
            if reason is None and stretch.decode:
                kind, reason = "image", _undecodable(data, stretch.max_pixels)
            if reason is not None:
                name = stored_name(_read(descriptor, max(0, start - BLOCK), start)[0])
                problems.append(Problem(stretch.tar, stretch.first + i, name, start, end, kind, reason))
    finally:
        os.close(descriptor)
    return values, problems


def stored_name(header: bytes) -> str:
    """The name in a tile's header (512,), for a message; long names are cut as the header has them."""
    text = header[:100].partition(b"\0")[0].decode("utf-8", "replace")
    return text.encode("unicode_escape", "replace").decode("ascii") if not text.isprintable() else text


def need_pillow() -> None:
    """Refuse to promise decoding where Pillow is missing."""
    try:
        import PIL.Image  # noqa: F401
    except ImportError as error:
        raise UserError("decoding tiles needs Pillow: pip install pillow, or leave it out with --no-decode.") from error


def _read(descriptor: int, start: int, end: int) -> tuple[bytes, str | None]:
    """The bytes of a tile, or why the disk does not give them."""
    try:
        return os.pread(descriptor, max(0, end - start), start), None
    except OSError as error:
        return b"", f"cannot be read: {error.strerror}"


def _changed(data: bytes, length: int, crc: int | None) -> str | None:
    """Why the bytes of a tile are not those that were indexed; None if they are."""
    if len(data) != length or not data:
        return f"expected {length:,} bytes, got {len(data):,}"
    if crc is not None and zlib.crc32(data) != crc:
        return (
            f"expected CRC-32 {crc:08x}, got {zlib.crc32(data):08x}: the bytes changed since the values were recorded"
        )
    return None


def _undecodable(data: bytes, max_pixels: int | None = None) -> str | None:
    """Why a tile is no image that training could use."""
    from dinov2.data.decoding import MAX_PIXELS, ImageError, decode_rgb

    try:
        decode_rgb(data, max_pixels=MAX_PIXELS if max_pixels is None else max_pixels)
    except ImageError as error:
        return str(error)
    return None
