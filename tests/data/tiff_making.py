"""TIFF files of any kind, also of kinds that image libraries do not write."""

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np

_NUMBERS = {
    "subfile": 254, "width": 256, "length": 257, "bits": 258, "compression": 259, "colors": 262, "fill_order": 266,
    "description": 270, "offset": 273, "samples": 277, "rows": 278, "size": 279, "planar": 284, "palette": 320,
    "ink_set": 332, "extra": 338, "sample_format": 339, "subsampling": 530,
}  # fmt: skip
_LONG = ("subfile", "width", "length", "offset", "rows", "size")
_PACKED = (1, 2, 4, 10, 12, 14)  # bits a sample that are no whole bytes


def tiff(
    pixels: np.ndarray, *more: np.ndarray, order: str = "<", pages: Sequence[dict[str, Any]] = (), **tags: Any
) -> bytes:
    """One strip of (H, W) or (H, W, channels), and further pages; `tags` by the names above replace what is usual.

    Args:
        pages: tags of each further page.
        data: in place of the samples.
    """
    file = bytearray(b"II*\0" if order == "<" else b"MM\0*") + bytes(4)
    link = 4
    for page, own in zip((pixels, *more), (tags, *pages, *({} for _ in more)), strict=False):
        link = _append(file, page, order, link, dict(own))
    return bytes(file)


def _append(file: bytearray, pixels: np.ndarray, order: str, link: int, tags: dict[str, Any]) -> int:
    samples = pixels.shape[2] if pixels.ndim == 3 else 1
    bits = tags.setdefault("bits", (pixels.itemsize * 8,) * samples)
    bits = bits[0] if isinstance(bits, tuple) else bits
    layers = np.moveaxis(pixels, 2, 0) if tags.get("planar") == 2 else [pixels]
    data = tags.pop("data", None)
    strips = [data] if data else [_stored(layer, bits, order, tags) for layer in layers]
    usual = {"width": pixels.shape[1], "length": pixels.shape[0], "compression": 1, "rows": pixels.shape[0]}
    usual |= {"colors": 2 if samples >= 3 else 1, "samples": samples, "size": tuple(map(len, strips))}
    usual["offset"] = tuple(len(file) + sum(map(len, strips[:n])) for n in range(len(strips)))
    file += b"".join(strips) + bytes(sum(map(len, strips)) % 2)
    entries = b""
    for name, value in sorted((usual | tags).items(), key=lambda item: _NUMBERS[item[0]]):
        if value is None:
            continue
        values = value if isinstance(value, (tuple, bytes)) else (value,)
        kind, letter = (2, "s") if isinstance(value, bytes) else (4, "I") if name in _LONG else (3, "H")
        raw = value + b"\0" if isinstance(value, bytes) else struct.pack(f"{order}{len(values)}{letter}", *values)
        count = len(raw) if isinstance(value, bytes) else len(values)
        if len(raw) > 4:
            place, raw = len(file), raw + bytes(len(raw) % 2)
            file += raw
            raw = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", _NUMBERS[name], kind, count) + raw.ljust(4, b"\0")
    file[link : link + 4] = struct.pack(order + "I", len(file))
    file += struct.pack(order + "H", len(entries) // 12) + entries + bytes(4)
    return len(file) - 4


def _stored(pixels: np.ndarray, bits: int, order: str, tags: dict[str, Any]) -> bytes:
    if bits in _PACKED:
        places = np.arange(bits - 1, -1, -1)
        rows = pixels.reshape(len(pixels), -1)
        data = np.packbits((rows[..., None] >> places & 1).astype(np.uint8).reshape(len(rows), -1), axis=1).tobytes()
    else:
        data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    if tags.get("fill_order") == 2:
        data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
    return zlib.compress(data) if tags.get("compression") == 8 else data
