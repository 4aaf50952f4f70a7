"""What the three components of a JPEG mean where it does not say.

A JFIF marker means YCbCr, an Adobe marker names the colours. Where both are missing, as in tiles that were lifted out
of slide files, decoders go by the numbers of the components: R, G, B are RGB, and all others YCbCr. But libjpeg gives
numbers from 0 on only to components of which it was told nothing, and stores them as they are: tiles of Aperio slides
are such RGB, and come out in false colours.
"""

import struct

_ADOBE_RGB = b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"  # length, name, version 100, no flags, transform 0
_JFIF, _ADOBE, _QUANTIZATION, _SCAN = 0xE0, 0xEE, 0xDB, 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # headers of frames, by kind of coding
_QUANTIZED = frozenset((0xC0, 0xC1, 0xC2))  # those of the usual kinds


def with_colors_named(data: bytes) -> bytes:
    """A JPEG, with an Adobe marker where it holds RGB without saying so."""
    if data[6:10] == b"JFIF":
        return data
    segments = _segments(data)
    if segments.get(_JFIF, b"")[:4] == b"JFIF" or segments.get(_ADOBE, b"")[:5] == b"Adobe":
        return data
    frame = next((segments[marker] for marker in _FRAMES & segments.keys()), b"")
    numbers, sampling = frame[6::3], frame[7::3]
    is_rgb = numbers == b"\x00\x01\x02" and len(set(sampling)) == 1  # only YCbCr is subsampled
    return data[:2] + _ADOBE_RGB + data[2:] if is_rgb else data


def lacks_tables(data: bytes) -> bool:
    """Whether a JPEG was lifted out of a TIFF without the tables that TIFF keeps for all its tiles (JPEGTables)."""
    segments = _segments(data)
    return _SCAN in segments and _QUANTIZATION not in segments and not _QUANTIZED.isdisjoint(segments)


def _segments(data: bytes) -> dict[int, bytes]:
    """The first body of each kind of segment, up to that of the first scan."""
    found: dict[int, bytes] = {}
    place, marker = 2, 0
    while place + 4 <= len(data) and data[place] == 0xFF and marker != _SCAN:
        marker = data[place + 1]
        if marker == 0xFF:  # fill
            place += 1
            continue
        (length,) = struct.unpack_from(">H", data, place + 2)
        found.setdefault(marker, data[place + 4 : place + 2 + length])
        place += 2 + length
    return found
