"""From the bytes of an image file to RGB, without trusting the file.

Formats are an allow-list, and the size is read from the header and bounded before anything is decoded. What is no
RGB becomes it like this: grey and palette images are expanded; transparent pixels show white, as the glass of a
slide does; CMYK and YCbCr are converted by their formulas without colour profiles; of more bits per channel the upper
eight remain. What has no agreed range, or is one of several pictures, is refused: docs/images.md has the whole table.
"""

import io
import warnings
from collections.abc import Callable

import numpy as np
import PIL
from PIL import Image
from PIL.BmpImagePlugin import BmpImageFile
from PIL.ImageFile import ImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from dinov2.errors import UserError

from .image_formats import format_of, unread
from .jpeg_colors import lacks_tables, with_colors_named
from .tiff_kinds import bits_of, first_page, why_several, why_unreadable

MAX_PIXELS = 4096 * 4096
_LONGEST = 100  # times the shorter side
_PNG_DEPTH = 24  # place of the bits per sample in the file


class ImageError(UserError):
    """Bytes that are no image that can be used; the message is the reason."""


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded image to RGB.

    Raises:
        ImageError: what was expected and what was found.
    """
    opener = _OPENERS.get(format_of(data) or "")
    if opener is None:
        raise ImageError(unread(data))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused below, or harmless
            with opener(data) as image:
                check_size(image.width, image.height, max_pixels)
                _check_kind(image, data)
                return _to_rgb(image, _bits_per_sample(image, data))
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise ImageError(_undecodable(data, error)) from error


def check_size(width: int, height: int, max_pixels: int) -> None:
    """Refuse what is too large for a tile, or becomes so when its shorter side is resized.

    Raises:
        ImageError: if it has more than `max_pixels`, or is a strip.
    """
    if width * height > max_pixels:
        raise ImageError(
            f"it has {width:,} x {height:,} pixels, more than the {max_pixels:,} that data.max_pixels allows; raise it "
            "if tiles of this size are meant, and cut slides into tiles"
        )
    if max(width, height) > _LONGEST * min(width, height):
        raise ImageError(f"it has {width:,} x {height:,} pixels: a strip, more than {_LONGEST} times as long as wide")


def _open_jpeg(data: bytes) -> ImageFile:
    return JpegImageFile(io.BytesIO(with_colors_named(data)))


def _open_tiff(data: bytes) -> ImageFile:
    try:
        return TiffImageFile(io.BytesIO(data))
    except SyntaxError as error:  # what Pillow has no mode for
        reason = why_unreadable(first_page(data))
        raise ImageError(reason or f"Pillow {PIL.__version__} does not read this kind of TIFF: {error}") from error


_OPENERS: dict[str, Callable[[bytes], ImageFile]] = {
    "JPEG": _open_jpeg,
    "PNG": lambda data: PngImageFile(io.BytesIO(data)),
    "TIFF": _open_tiff,
    "BMP": lambda data: BmpImageFile(io.BytesIO(data)),
    "WEBP": lambda data: WebPImageFile(io.BytesIO(data)),
}


def _bits_per_sample(image: ImageFile, data: bytes) -> int:
    if isinstance(image, TiffImageFile):
        return bits_of(image.tag_v2)
    return data[_PNG_DEPTH] if isinstance(image, PngImageFile) else 8


def _check_kind(image: ImageFile, data: bytes) -> None:
    """Refuse what decodes, but not to the picture that is meant."""
    reason = None
    if isinstance(image, TiffImageFile):
        reason = why_unreadable(image.tag_v2) or why_several(image.tag_v2, data)
    elif isinstance(image, PngImageFile) and "transparency" in image.info and image.mode != "P":
        bits = data[_PNG_DEPTH]
        if bits not in (1, 8):
            reason = f"its transparent colour (tRNS) of {bits} bits cannot be told from others. Save it with 8 bits"
    frames = 1 if isinstance(image, TiffImageFile) else getattr(image, "n_frames", 1)
    if frames > 1:
        reason = f"it is an animation of {frames} pictures"
    if reason:
        raise ImageError(reason)


def _to_rgb(image: Image.Image, bits: int) -> Image.Image:
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> (bits - 8)).astype(np.uint8))
    if bits > 8 and np.asarray(image.convert("L")).max() < 16:
        raise ImageError(
            f"of the {bits} bits of its samples the upper four are never used, as where a camera's 12 bits are stored "
            "in 16: it would be black. Scale all tiles alike to 8 or 16 bits"
        )
    if image.has_transparency_data and not _has_unused_alpha(image):
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _has_unused_alpha(image: Image.Image) -> bool:
    """Whether a BMP has a fourth byte that nobody filled in."""
    return image.format == "BMP" and image.getchannel("A").getextrema() == (0, 0)


def _undecodable(data: bytes, error: Exception) -> str:
    """The message of a library, which may quote bytes of the file, in one line."""
    message = str(error).encode("unicode_escape", "backslashreplace").decode("ascii")[:200]
    hint = ""
    if format_of(data) == "JPEG" and lacks_tables(data):
        hint = ". It has no tables: a tile of a slide file, whose TIFF keeps them for all of its tiles (JPEGTables)"
    return f"it does not decode: {message or type(error).__name__}{hint}"
