"""Image files, and what is found in their place, told apart by their first bytes."""

IMAGE_FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP")  # that are read

_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0"), "TIFF"),  # with + BigTIFF
    b"MM\0+": "big-endian BigTIFF",
    b"BM": "BMP",
    b"GIF8": "GIF",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\xff\x4f\xff\x51": "JPEG 2000 without its container, whose colours nothing names",
    **dict.fromkeys((b"\xff\x0a", b"\0\0\0\x0cJXL "), "JPEG XL"),
    b"II\xbc\x01": "JPEG XR",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "NumPy",
    b"PK\x03\x04": "zip or npz",
    b"\x1f\x8b": "gzip",
    b"%PDF": "PDF",
    b"<": "HTML or XML",
    b"version https://git-lfs": "a pointer of git-lfs: git lfs pull",
}
_SHOWN_BYTES = 4


def format_of(data: bytes) -> str | None:
    """The name of a format; None if it is not known."""
    if data[8:12] == b"WEBP":
        return "WEBP"
    if data[4:8] == b"ftyp":
        return "AVIF, HEIF or video"
    if data[128:132] == b"DICM":
        return "DICOM"
    return next((name for start, name in _STARTS.items() if data.startswith(start)), None)


def unread(data: bytes) -> str:
    """What was found in place of an image."""
    name, start = format_of(data), data[:_SHOWN_BYTES].hex(" ") or "nothing"
    return f"expected {', '.join(IMAGE_FORMATS)}, found {len(data):,} bytes starting with {start}" + (
        f" ({name})" if name else ""
    )
