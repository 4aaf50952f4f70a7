"""Every kind of TIFF is decoded to the right pixels, or refused by the tag that makes it another kind."""

import io

import numpy as np
import pytest
from PIL import Image

from dinov2.data.decoding import ImageError, decode_rgb

from .tiff_making import tiff

GREY = (np.arange(18 * 20, dtype=np.uint8).reshape(18, 20) * 7) % 251 + 2  # even width, so that packed rows end evenly
RGB = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)
SEEN = np.arange(20)[None, :] < 11
ALPHA = np.where(SEEN, 255, 0).astype(np.uint8).repeat(18, axis=0)
ON_WHITE = np.where(ALPHA[..., None] > 0, RGB, 255)
INK = np.dstack([255 - RGB, np.zeros_like(GREY)])
COLOR_MAP = tuple(np.concatenate([np.arange(256), np.arange(256)[::-1], np.full(256, 128)]) * 257)
IMAGEJ = b"ImageJ=1.54f\nimages=%d\n"
OME = b'<OME><Pixels SizeC="%d" SizeT="%d" SizeZ="1"/></OME>'


def deep(pixels: np.ndarray, bits: int = 16) -> np.ndarray:
    """With white at the largest number of so many bits."""
    return ((pixels.astype(np.uint16) * 257) >> (16 - bits)).astype(np.uint16)


def grey(pixels: np.ndarray) -> np.ndarray:
    return np.stack([pixels] * 3, axis=2)


def levels(bits: int) -> np.ndarray:
    return GREY >> (8 - bits)


def jpeg(color: str) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(np.full((18, 20, 3), 90, np.uint8)).save(stream, "JPEG", quality=95, keep_rgb=color == "RGB")
    return stream.getvalue()


RIGHT = {
    **{f"{b} bits": (tiff(levels(b), bits=b), grey(levels(b) * (255 // (2**b - 1)))) for b in (1, 2, 4)},
    "8 bits": (tiff(GREY), grey(GREY)),
    "8 bits, big-endian": (tiff(GREY, order=">"), grey(GREY)),
    "8 bits, deflate": (tiff(GREY, compression=8), grey(GREY)),
    "white is 0": (tiff(255 - GREY, colors=0), grey(GREY)),
    "white is 0, deflate": (tiff(255 - GREY, colors=0, compression=8), grey(GREY)),
    "12 bits": (tiff(deep(GREY, 12), bits=12), grey(GREY)),
    "12 bits, odd width": (tiff(deep(GREY, 12)[:, 1:], bits=12), grey(GREY)[:, 1:]),
    "16 bits": (tiff(deep(GREY)), grey(GREY)),
    "16 bits, big-endian": (tiff(deep(GREY), order=">"), grey(GREY)),
    "16 bits, deflate": (tiff(deep(GREY), compression=8), grey(GREY)),
    "RGB": (tiff(RGB), RGB),
    "RGB, one number of bits for all": (tiff(RGB, bits=8), RGB),
    "RGB of 16 bits": (tiff(deep(RGB)), RGB),
    "RGB of 16 bits, big-endian": (tiff(deep(RGB), order=">"), RGB),
    "RGB apart": (tiff(RGB, planar=2), RGB),
    "RGB of 16 bits apart, deflate": (tiff(deep(RGB), planar=2, compression=8), RGB),
    "RGB and alpha": (tiff(np.dstack([RGB, ALPHA]), extra=2), ON_WHITE),
    "RGB and alpha that is not named": (tiff(np.dstack([RGB, ALPHA])), ON_WHITE),
    "RGB multiplied by alpha": (tiff(np.dstack([RGB * (ALPHA > 0)[..., None], ALPHA]), extra=1), ON_WHITE),
    "RGB and alpha of 16 bits": (tiff(deep(np.dstack([RGB, ALPHA])), extra=2), ON_WHITE),
    "grey and alpha": (tiff(np.dstack([GREY, ALPHA]), extra=2), np.where(SEEN[..., None], grey(GREY), 255)),
    "palette": (tiff(GREY, colors=3, palette=COLOR_MAP), np.dstack([GREY, 255 - GREY, np.full_like(GREY, 128)])),
    "CMYK": (tiff(INK, colors=5), RGB),
    "CMYK of 16 bits": (tiff(deep(INK), colors=5), RGB),
    "smaller copies": (tiff(RGB, RGB[::2, ::2], RGB[::4, ::4], pages=[{"subfile": 1}]), RGB),
    "one image of ImageJ": (tiff(RGB, description=IMAGEJ % 1), RGB),
    "RGB of OME": (tiff(RGB, description=OME % (3, 1)), RGB),
    "JPEG": (tiff(RGB, colors=6, compression=7, data=jpeg("YCbCr"), subsampling=(2, 2)), np.full((18, 20, 3), 90)),
    "JPEG that holds RGB": (tiff(RGB, compression=7, data=jpeg("RGB")), np.full((18, 20, 3), 90)),
}
REFUSED = {
    "no colours": (tiff(GREY, colors=None), "PhotometricInterpretation None"),
    "10 bits": (tiff(deep(GREY, 10), bits=10), "10 bits a sample"),
    "14 bits": (tiff(deep(GREY, 14), bits=14), "14 bits a sample"),
    "12 bits, deflate": (tiff(deep(GREY, 12), bits=12, compression=8), "12 bits are read uncompressed"),
    "12 bits, big-endian": (tiff(deep(GREY, 12), bits=12, order=">"), "Pillow .* does not read this kind of TIFF"),
    "RGB of 12 bits": (tiff(deep(RGB, 12), bits=(12, 12, 12)), "12, 12, 12 bits a sample"),
    "RGB of 4 bits": (tiff(RGB >> 4, bits=(4, 4, 4)), "4, 4, 4 bits a sample"),
    "32 bits": (tiff(GREY.astype(np.uint32) << 24), "32 bits a sample"),
    "12 bits in 16": (tiff(deep(GREY, 12)), "upper four are never used"),
    "RGB of 10 bits in 16": (tiff(deep(RGB, 10)), "upper four are never used"),
    "white is 0, 16 bits": (tiff(65535 - deep(GREY), colors=0), "16 bits a sample"),
    "signed": (tiff(GREY, sample_format=2), "signed .SampleFormat 2"),
    "signed 16": (tiff(deep(GREY) >> 1, sample_format=2), "signed"),
    "float": (tiff(GREY.astype(np.float32) / 255, sample_format=3), "floating point"),
    "half": (tiff(GREY.astype(np.float16) / 255, sample_format=3), "floating point"),
    "RGB float": (tiff(RGB.astype(np.float32) / 255, sample_format=(3, 3, 3)), "floating point"),
    "RGB of 16 bits apart": (tiff(deep(RGB), planar=2), "PlanarConfiguration 2"),
    "bits reversed": (tiff(RGB, fill_order=2), "FillOrder 2"),
    "two channels": (tiff(RGB[..., :2]), "2 channels"),
    "two channels apart": (tiff(RGB[..., :2], planar=2, extra=0), "2 channels"),
    "three channels of no colour": (tiff(RGB, colors=1, extra=(0, 0)), "3 channels"),
    "four channels": (tiff(np.dstack([RGB, GREY]), extra=0), "4 channels .*ExtraSamples .0."),
    "five channels": (tiff(np.dstack([RGB, RGB[..., :2]]), extra=(0, 0)), "5 channels"),
    "grey multiplied by alpha": (tiff(np.dstack([GREY, ALPHA]), extra=1), "ExtraSamples .1."),
    "CIELAB": (tiff(RGB, colors=8), "CIELAB"),
    "ICCLAB": (tiff(RGB, colors=9), "ICCLAB"),
    "camera mosaic": (tiff(GREY, colors=32803), "colour filter array"),
    "raw": (tiff(deep(RGB), colors=34892), "raw"),
    "inks": (tiff(INK, colors=5, ink_set=2), "inks"),
    "palette of 8 bits": (tiff(GREY, colors=3, palette=tuple(v // 257 for v in COLOR_MAP)), "ColorMap"),
    "YCbCr": (tiff(RGB, colors=6, subsampling=(1, 1)), "YCbCr is read with JPEG compression"),
    "YCbCr, deflate": (tiff(RGB, colors=6, compression=8, subsampling=(1, 1)), "YCbCr is read with JPEG compression"),
    **{
        f"compression {number}": (tiff(RGB, compression=number), f"{number} .{name}")
        for number, name in {6: "old-style JPEG", 33003: "JPEG 2000", 34712: "JPEG 2000", 50001: "WebP"}.items()
    },
    "unknown compression": (tiff(RGB, compression=65000), "65000 .unknown"),
    "two pages": (tiff(GREY, GREY), "page 2 is not smaller"),
    "channels behind a smaller copy": (tiff(GREY, GREY[::2, ::2], GREY), "page 3 is not smaller"),
    "mask": (tiff(RGB, GREY, pages=[{"subfile": 4}]), "page 2"),
    "thumbnail first": (tiff(RGB, subfile=1), "smaller copy of another"),
    "ImageJ's images": (tiff(GREY, description=IMAGEJ % 3), "3 images .ImageJ"),
    "OME's channels": (tiff(GREY, description=OME % (4, 1)), "4 channels .OME"),
    "OME's frames": (tiff(RGB, description=OME % (3, 9)), "9 frames .OME"),
    "tifffile's images": (tiff(GREY, description=b'{"truncated": true}'), "several images .tifffile"),
}


@pytest.mark.parametrize("kind", RIGHT)
def test_what_is_read_has_the_right_pixels(kind):
    data, expected = RIGHT[kind]
    assert np.abs(np.asarray(decode_rgb(data)).astype(int) - expected).max() <= ("JPEG" in kind)


@pytest.mark.parametrize("kind", REFUSED)
def test_the_reason_names_the_tag(kind):
    data, reason = REFUSED[kind]
    with pytest.raises(ImageError, match=reason):
        decode_rgb(data)


def test_size_comes_before_kind():
    with pytest.raises(ImageError, match=r"20 x 18 pixels, more than the 100 that data.max_pixels"):
        decode_rgb(tiff(RGB, RGB), max_pixels=100)
