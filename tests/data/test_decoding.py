"""Images of every kind become RGB in the documented way, or are refused with a reason."""

import io
import random
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dinov2.data.decoding import MAX_PIXELS, ImageError, decode_rgb

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8) * 4
COLOUR = np.stack([GREY, GREY[::-1], 255 - GREY], axis=2)


def encoded(image: Image.Image, form: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def decoded(data: bytes) -> np.ndarray:
    image = decode_rgb(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize("form", ["PNG", "TIFF", "BMP"])
def test_rgb_stays_what_it_is(form):
    assert np.array_equal(decoded(encoded(Image.fromarray(COLOUR), form)), COLOUR)


def test_jpeg_and_webp_are_close():
    smooth = np.full((16, 16, 3), (200, 100, 50), dtype=np.uint8)
    for form in ("JPEG", "WEBP"):
        assert np.abs(decoded(encoded(Image.fromarray(smooth), form)).astype(int) - smooth).max() < 6


def test_grey_and_bilevel_and_palette():
    assert np.array_equal(decoded(encoded(Image.fromarray(GREY))), np.stack([GREY] * 3, axis=2))
    bits = GREY > 100
    assert np.array_equal(decoded(encoded(Image.fromarray(bits)))[..., 0], np.where(bits, 255, 0))
    palette = Image.fromarray(GREY // 128).convert("P")
    palette.putpalette([10, 20, 30, 200, 100, 0] + [0] * 762)
    indices = np.asarray(palette)
    assert np.array_equal(decoded(encoded(palette)), np.array([[10, 20, 30], [200, 100, 0]])[indices])


def test_transparent_pixels_show_white():
    alpha = np.zeros((8, 8), dtype=np.uint8)
    alpha[:, 4:] = 255
    alpha[0, 0] = 128
    pixels = decoded(encoded(Image.fromarray(np.dstack([COLOUR, alpha]))))
    assert np.array_equal(pixels[:, 4:], COLOUR[:, 4:])
    assert (pixels[1:, :4] == 255).all()
    assert np.abs(pixels[0, 0] - (COLOUR[0, 0] * 128.0 + 255 * 127) / 255).max() <= 1
    grey = decoded(encoded(Image.fromarray(np.dstack([GREY, alpha]), "LA")))
    assert (grey[1:, :4] == 255).all() and np.array_equal(grey[:, 4:, 0], GREY[:, 4:])
    marked = Image.fromarray(COLOUR)
    pixels = decoded(encoded(marked, transparency=tuple(int(v) for v in COLOUR[3, 3])))
    assert (pixels[3, 3] == 255).all() and np.array_equal(pixels[3, 4], COLOUR[3, 4])


def test_of_sixteen_bits_the_upper_eight_remain():
    deep = (GREY.astype(np.uint16) << 8) + 255
    for form in ("PNG", "TIFF"):
        assert np.array_equal(decoded(encoded(Image.fromarray(deep), form))[..., 0], GREY)
    assert np.array_equal(decoded(png_of_sixteen_bits(COLOUR)), COLOUR)


def png_of_sixteen_bits(colour: np.ndarray) -> bytes:
    """An RGB PNG of 16 bits per channel, which Pillow cannot write."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width, _ = colour.shape
    deep = (colour.astype(">u2") << 8) + 7
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    header = struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def test_cmyk():
    ink = np.zeros((8, 8, 4), dtype=np.uint8)
    ink[:4, :, 0] = 255
    pixels = decoded(encoded(Image.fromarray(ink, "CMYK"), "TIFF"))
    assert (pixels[:4] == (0, 255, 255)).all() and (pixels[4:] == 255).all()
    smooth = Image.fromarray(ink, "CMYK").resize((64, 64), Image.Resampling.NEAREST)
    assert np.abs(decoded(encoded(smooth, "JPEG", quality=95))[:16].astype(int) - (0, 255, 255)).max() < 12


def markerless(color: str, numbers: bytes, *, marker: bytes = b"") -> bytes:
    """A JPEG as it lies in a TIFF: without the markers that name its colours, with components of these numbers."""
    pixels = Image.fromarray(COLOUR.repeat(4, axis=0).repeat(4, axis=1))
    rgb = {"keep_rgb": True} if color == "RGB" else {"subsampling": color}
    data = encoded(pixels, "JPEG", quality=98, **rgb)
    file, place = bytearray(data[:2] + marker), 2
    while (kind := data[place + 1]) != 0xDA:
        length = 2 + struct.unpack(">H", data[place + 2 : place + 4])[0]
        segment = bytearray(data[place : place + length])
        if kind == 0xC0:
            segment[10::3] = numbers
        file += b"" if kind in (0xE0, 0xEE) else segment
        place += length
    scan = bytearray(data[place:])
    scan[5:11:2] = numbers
    return bytes(file + scan)


@pytest.mark.parametrize(
    ("color", "numbers", "marker"),
    [
        ("RGB", b"\0\1\2", b""),  # Aperio's
        ("RGB", b"\0\1\2", b"\xff\xfe\x00\x06note\xff"),  # a comment and a fill byte before
        ("RGB", b"RGB", b""),  # libtiff's RGB
        ("4:4:4", b"\1\2\3", b""),  # libtiff's YCbCr
        ("4:2:0", b"\1\2\3", b""),
        ("4:2:0", b"\0\1\2", b""),  # subsampled, so it cannot be RGB
        ("4:4:4", b"\0\1\2", b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x01"),
        ("RGB", b"\1\2\3", b"\xff\xee\x00\x0eAdobe\x00\x64\x00\x00\x00\x00\x00"),
    ],
)
def test_jpeg_tiles_of_slide_files_have_their_colours(color, numbers, marker):
    expected = COLOUR.repeat(4, axis=0).repeat(4, axis=1).astype(int)
    difference = np.abs(decoded(markerless(color, numbers, marker=marker)) - expected).mean()
    assert difference < (8 if color == "4:2:0" else 2)  # false colours are 50 and more levels off


def test_jpeg_tiles_without_their_tables():
    data = markerless("RGB", b"\0\1\2")
    start = data.index(b"\xff\xdb")
    with pytest.raises(ImageError, match="has no tables: a tile of a slide file"):
        decode_rgb(data[:start] + data[data.index(b"\xff\xc0") :])


def test_dark_png_of_sixteen_bits_is_refused():
    for colour in (GREY.astype(np.uint16) << 4, (GREY.astype(np.uint16) << 2) + 3):
        with pytest.raises(ImageError, match="upper four are never used"):
            decode_rgb(encoded(Image.fromarray(colour)))


@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_animations_are_refused(form):
    pages = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    with pytest.raises(ImageError, match="animation of 2 pictures"):
        decode_rgb(encoded(pages[0], form, save_all=True, append_images=pages[1:]))


def test_transparent_colour_of_a_png_with_other_bits():
    image = Image.fromarray(GREY.astype(np.uint16) * 257)
    with pytest.raises(ImageError, match="tRNS.* of 16 bits"):
        decode_rgb(encoded(image, transparency=int(GREY[1, 1]) * 257))


@pytest.mark.parametrize(("alpha", "left"), [(0, COLOUR[:, :4]), (255, 255)])
def test_alpha_of_a_bmp_counts_where_it_was_filled_in(alpha, left):
    pixels = np.dstack([COLOUR[..., ::-1], np.zeros_like(GREY)])
    pixels[:, 4:, 3] = alpha
    masks = struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000)
    header = struct.pack("<IiiHHIIiiII", 108, 8, 8, 1, 32, 3, 256, 2835, 2835, 0, 0) + masks + bytes(52)
    data = b"BM" + struct.pack("<IHHI", 122 + 256, 0, 0, 122) + header + pixels[::-1].tobytes()
    assert (decoded(data)[:, 4:] == COLOUR[:, 4:]).all() and (decoded(data)[:, :4] == left).all()


def bomb(side: int) -> bytes:
    """A PNG of few bytes that claims side x side pixels."""
    body = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    chunks = b"".join(
        struct.pack(">I", len(part)) + kind + part + struct.pack(">I", zlib.crc32(kind + part))
        for kind, part in ((b"IHDR", body), (b"IDAT", data), (b"IEND", b""))
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


@pytest.mark.parametrize(
    ("side", "message"), [(4097, "4,097 x 4,097"), (9000, "9,000 x"), (20_000, "20,000 x .*data.max_pixels")]
)
@pytest.mark.filterwarnings("error")
def test_bombs_are_refused_by_their_header(side, message):
    with pytest.raises(ImageError, match=message):
        decode_rgb(bomb(side))


def test_strips_are_refused():
    for size in ((3, 301), (301, 3)):
        with pytest.raises(ImageError, match="a strip"):
            decode_rgb(encoded(Image.new("RGB", size)))
    assert decode_rgb(encoded(Image.new("RGB", (3, 300)))).size == (3, 300)


def test_the_bound_can_be_moved():
    assert MAX_PIXELS == 4096 * 4096
    data = encoded(Image.fromarray(COLOUR))
    assert decode_rgb(data, max_pixels=64).size == (8, 8)
    with pytest.raises(ImageError, match="8 x 8 pixels, more than the 63"):
        decode_rgb(data, max_pixels=63)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "0 bytes starting with nothing"),
        (b"<html>", "6 bytes starting with 3c 68 74 6d"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "expected JPEG, PNG"),
        (encoded(Image.fromarray(COLOUR), "GIF"), r"starting with 47 49 46 38 \(GIF\)"),
        (b"\xff\x4f\xff\x51" + bytes(40), "JPEG 2000 without its container"),
        (bytes(4) + b"ftypavif", "AVIF"),
        (bytes(128) + b"DICM" + bytes(9), "DICOM"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (encoded(Image.fromarray(COLOUR))[:-30], "does not decode"),
        (encoded(Image.fromarray(COLOUR).resize((64, 64)), "JPEG")[:-200], "truncated"),
    ],
)
def test_what_is_no_image(data, message):
    with pytest.raises(ImageError, match=message):
        decode_rgb(data)


def test_damage_raises_nothing_but_our_error():
    chance = random.Random(0)
    sources = [encoded(Image.fromarray(COLOUR).resize((32, 32)), form) for form in ("JPEG", "PNG", "TIFF", "WEBP")]
    outcomes = {"good": 0, "refused": 0}
    for number in range(2000):
        data = bytearray(sources[number % len(sources)])
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        try:
            decode_rgb(bytes(data))
            outcomes["good"] += 1
        except ImageError as error:
            assert "\n" not in str(error)
            outcomes["refused"] += 1
    assert outcomes["good"] > 0 and outcomes["refused"] > 100
