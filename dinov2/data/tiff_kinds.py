"""Which TIFF files are read, judged by their tags before a pixel is decoded.

TIFF holds far more than pictures, and some of the rest is decoded to wrong pictures without an error. What is listed
here gives the right pixels under every supported Pillow; anything else is refused with the tag that says why.
"""

import re
from collections.abc import Iterator, Mapping
from io import BytesIO
from itertools import islice
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

# Tags, by the names of the TIFF 6.0 specification.
NEW_SUBFILE_TYPE, WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 254, 256, 257, 258, 259, 262
FILL_ORDER, DESCRIPTION, SAMPLES, PLANAR, COLOR_MAP, INK_SET = 266, 270, 277, 284, 320, 332
EXTRA_SAMPLES, SAMPLE_FORMAT = 338, 339

_WHITE_IS_ZERO, _GREY, _RGB, _PALETTE, _CMYK, _YCBCR = 0, 1, 2, 3, 5, 6
_OTHER_COLORS = {4: "a mask", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB", 32803: "a colour filter array", 34892: "raw"}
# How many samples a colour has, and the bits of each that are read.
_COLORS = {
    _WHITE_IS_ZERO: (1, (1, 2, 4, 8)),
    _GREY: (1, (1, 2, 4, 8, 12, 16)),
    _RGB: (3, (8, 16)),
    _PALETTE: (1, (1, 2, 4, 8)),
    _CMYK: (4, (8, 16)),
    _YCBCR: (3, (8,)),
}
_NONE, _JPEG = 1, 7
_COMPRESSIONS = (_NONE, 2, 3, 4, 5, _JPEG, 8, 32773, 32946, 34925, 50000)  # fax, LZW, deflate, PackBits, LZMA, zstd
_OTHER_COMPRESSIONS = {6: "old-style JPEG", 34887: "LERC", 34933: "PNG", 50001: "WebP"} | dict.fromkeys(
    (33003, 33004, 33005, 34712), "JPEG 2000"
)
_SAMPLE_FORMATS = {2: "signed", 3: "floating point", 5: "complex", 6: "complex"}
_SCALE = "Scale all tiles alike to 8 bits"
_UNTOUCHED, _PREMULTIPLIED, _STRAIGHT = (), (1,), (2,)  # ExtraSamples: no alpha, or alpha of two kinds
_REDUCED = 1  # bit of NewSubfileType: a smaller copy of another page
_MOST_PAGES = 20  # more are not looked at

Tags = Mapping[int, Any]


def first_page(data: bytes) -> ImageFileDirectory_v2:
    """The tags of the first page; those of pictures within a page (SubIFDs) are never followed."""
    return next(pages_after(ImageFileDirectory_v2(_header(data)), data))


def pages_after(page: ImageFileDirectory_v2, data: bytes) -> Iterator[ImageFileDirectory_v2]:
    """The tags of each further page."""
    stream = BytesIO(data)
    while page.next:
        stream.seek(page.next)
        page = ImageFileDirectory_v2(_header(data))
        page.load(stream)
        yield page


def why_unreadable(tags: Tags) -> str | None:
    """Why the pixels of a page are not read; None if they are."""
    return _wrong_colors(tags) or _wrong_samples(tags) or _wrong_storage(tags)


def why_several(page: ImageFileDirectory_v2, data: bytes) -> str | None:
    """Why the first page is not the whole picture, but one of several channels, planes or frames; None if it is."""
    for number, later in enumerate(islice(pages_after(page, data), _MOST_PAGES), start=2):
        is_smaller = later.get(WIDTH, 0) < page[WIDTH] and later.get(LENGTH, 0) < page[LENGTH]
        if not is_smaller and not later.get(NEW_SUBFILE_TYPE, 0) & _REDUCED:
            return (
                f"page {number} is not smaller than the first: a stack of channels, planes or frames. "
                "Save the one picture that is meant as a file of its own"
            )
    if page.get(NEW_SUBFILE_TYPE, 0) & _REDUCED:
        return "its first page is a smaller copy of another (NewSubfileType 1)"
    described = _described_planes(str(page.get(DESCRIPTION, "")), samples=page.get(SAMPLES, 1))
    return described and f"its description speaks of {described}, of which it shows one"


def bits_of(tags: Tags) -> int:
    """Bits of a sample, of a page that is read."""
    return _bits(tags)[0]


def _wrong_colors(tags: Tags) -> str | None:
    colors = tags.get(PHOTOMETRIC)
    if colors not in _COLORS or tags.get(INK_SET, 1) != 1:
        name = "inks" if colors == _CMYK else _OTHER_COLORS.get(colors or 0, "unknown")
        return (
            f"its colours are {name} (PhotometricInterpretation {colors}), expected grey, RGB, palette, CMYK or YCbCr"
        )
    num_colors, extra = _COLORS[colors][0], _extra(tags)
    samples = tags.get(SAMPLES, 1)
    # OpenCV writes the alpha of RGB without saying so.
    known = {_RGB: (_UNTOUCHED, _PREMULTIPLIED, _STRAIGHT), _GREY: (_UNTOUCHED, _STRAIGHT)}.get(colors, (_UNTOUCHED,))
    num_alpha = 1 if extra or (colors == _RGB and samples == 4) else 0
    if samples != num_colors + num_alpha or extra not in known:
        return (
            f"it has {samples} channels (SamplesPerPixel), ExtraSamples {list(extra)}, expected {num_colors} for its "
            f"colours (PhotometricInterpretation {colors}) or one of transparency more. Save those to be seen as RGB"
        )
    if colors == _PALETTE and max(tags.get(COLOR_MAP, (0,))) < 256:
        return "its palette (ColorMap) has 8 bits a colour instead of 16"
    return None


def _wrong_samples(tags: Tags) -> str | None:
    formats = set(_tuple(tags.get(SAMPLE_FORMAT, 1))) - {1}
    if formats:
        kind = _SAMPLE_FORMATS.get(min(formats), "of unknown type")
        return f"its samples are {kind} (SampleFormat {min(formats)}), expected unsigned whole numbers. {_SCALE}"
    bits, known = _bits(tags), _COLORS[tags[PHOTOMETRIC]][1]
    if len(set(bits)) != 1 or bits[0] not in known:
        found = ", ".join(map(str, bits))
        return f"it has {found} bits a sample (BitsPerSample), expected {', '.join(map(str, known))}. {_SCALE}"
    return None


def _wrong_storage(tags: Tags) -> str | None:
    compression, bits = tags.get(COMPRESSION, _NONE), bits_of(tags)
    if compression not in _COMPRESSIONS:
        name = _OTHER_COMPRESSIONS.get(compression, "unknown")
        return f"its compression {compression} ({name}) is not read. Save it with LZW or deflate"
    if bits == 12 and compression != _NONE:
        return f"samples of 12 bits are read uncompressed, not with compression {compression}. {_SCALE}"
    if tags[PHOTOMETRIC] == _YCBCR and compression != _JPEG:
        return f"YCbCr is read with JPEG compression, not with compression {compression}. Save it as RGB"
    if tags.get(PLANAR, 1) != 1 and bits == 16 and compression == _NONE:
        return "its channels of 16 bits lie apart (PlanarConfiguration 2). Save them pixel by pixel, or with LZW"
    if tags.get(FILL_ORDER, 1) != 1 and bits > 1:
        return f"the bits of its bytes are reversed (FillOrder {tags[FILL_ORDER]})"
    return None


def _described_planes(text: str, *, samples: int) -> str | None:
    """How many channels, planes and frames ImageJ, OME or tifffile say that a file has; None for one."""
    if text.startswith("ImageJ="):
        images = re.search(r"^images=(\d+)", text, re.MULTILINE)
        return f"{images[1]} images (ImageJ)" if images and int(images[1]) > 1 else None
    if "<OME" in text[:5000]:
        sizes = dict(re.findall(r'\bSize([CZT])="(\d+)"', text))
        several = [f"{n} {_AXES[axis]}" for axis, n in sizes.items() if int(n) > (samples if axis == "C" else 1)]
        return f"{', '.join(several)} (OME)" if several else None
    return "several images (tifffile)" if '"truncated": true' in text else None


_AXES = {"C": "channels", "Z": "planes", "T": "frames"}


def _header(data: bytes) -> bytes:
    return data[:16] if data[2:4] in (b"+\0", b"\0+") else data[:8]  # + is BigTIFF


def _bits(tags: Tags) -> tuple[int, ...]:
    return _tuple(tags.get(BITS, 1))


def _extra(tags: Tags) -> tuple[int, ...]:
    return _tuple(tags.get(EXTRA_SAMPLES, ()))


def _tuple(value: Any) -> tuple[int, ...]:
    return value if isinstance(value, tuple) else (value,)
