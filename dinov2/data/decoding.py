"""From the bytes of an image file to RGB, without trusting the file.

Formats are an allow-list, and the size is read from the header and bounded before anything is decoded. What is no
RGB becomes it like this: grey and palette images are expanded; transparent pixels show white, as the glass of a
slide does; CMYK and YCbCr are converted by their formulas without colour profiles; of 16 bits per channel the upper
eight remain. Floating-point, 32-bit and CIELAB images have no agreed range and are refused. Of several pages the
first counts, and a camera's orientation tag is ignored.
"""

import io
import warnings

import numpy as np
from PIL import Image

from dinov2.errors import UserError

IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")
MAX_PIXELS = 4096 * 4096
_SHOWN_BYTES = 4


class ImageError(UserError):
    """Bytes that are no image that can be used; the message is the reason."""


def decode_rgb(data: bytes, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decode an encoded image to RGB.

    Raises:
        ImageError: what was expected and what was found.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow warns of is refused below, or harmless
            with Image.open(io.BytesIO(data), formats=IMAGE_FORMATS) as image:
                _check_size(image, max_pixels)
                return _to_rgb(image)
    except (ImageError, MemoryError):
        raise
    except (Image.UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise ImageError(_unknown(data, error)) from error
    except Exception as error:  # decoders raise OSError, SyntaxError, ValueError, struct.error and more
        raise ImageError(f"it does not decode: {type(error).__name__}: {_one_line(error)}") from error


def _check_size(image: Image.Image, max_pixels: int) -> None:
    if image.width * image.height > max_pixels:
        raise ImageError(
            f"its header says {image.width:,} x {image.height:,} pixels, more than the {max_pixels:,} that are allowed"
        )


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8)).convert("RGB")
    if image.mode in ("I", "F", "LAB"):
        raise ImageError(f"its colour mode {image.mode} cannot be turned into RGB")
    if image.has_transparency_data:
        background = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(background, image.convert("RGBA")).convert("RGB")
    return image.convert("RGB")


def _unknown(data: bytes, error: Exception) -> str:
    if isinstance(error, Image.DecompressionBombError):
        return f"its header claims a size that no tile has: {_one_line(error)}"
    start = data[:_SHOWN_BYTES].hex(" ") or "nothing"
    return f"expected {', '.join(IMAGE_FORMATS)}, found {len(data):,} bytes starting with {start}"


def _one_line(error: Exception) -> str:
    """The message of a library, which may quote bytes of the file."""
    return str(error).encode("unicode_escape", "backslashreplace").decode("ascii")[:200]
