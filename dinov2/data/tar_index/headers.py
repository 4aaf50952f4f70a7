"""The fields of one 512-byte tar header, read strictly.

Source: POSIX.1-2001 "pax interchange format" and the GNU tar manual, chapter "Basic Tar Format". Differs from
Python's tarfile: what tarfile guesses (a damaged number, a missing end marker, an unknown member type) is an
error here, because a wrong guess about one size shifts every tile after it.
"""

import numpy as np
from numpy.typing import NDArray

BLOCK = 512
ZERO_BLOCK = bytes(BLOCK)
LARGEST_SIZE = 2**62

SIZE_FIELD = slice(124, 136)
CHECKSUM_FIELD = slice(148, 156)
TYPE_BYTE = 156
NEWLINE = ord("\n")

OLD_REGULAR, REGULAR, HARD_LINK, CONTIGUOUS = 0, ord("0"), ord("1"), ord("7")
REGULAR_KINDS = frozenset({OLD_REGULAR, REGULAR, CONTIGUOUS})
LONG_NAME, LONG_TARGET, PAX_MEMBER, PAX_GLOBAL = ord("L"), ord("K"), ord("x"), ord("g")
EXTENSION_KINDS = frozenset({LONG_NAME, LONG_TARGET, PAX_MEMBER, ord("X"), PAX_GLOBAL})
SKIPPED_KINDS = {
    ord("2"): "symbolic links",
    ord("3"): "character devices",
    ord("4"): "block devices",
    ord("5"): "folders",
    ord("6"): "named pipes",
    ord("V"): "volume labels",
    ord("D"): "folder listings",
}
NAMED_KINDS = frozenset(SKIPPED_KINDS) - {ord("V")}  # what takes a path when unpacked, besides files and hard links
WITHOUT_DATA = frozenset({HARD_LINK, *SKIPPED_KINDS} - {ord("D")})

COMPRESSIONS = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"\x1f\x9d": ("compress (.Z)", "uncompress"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ\x00": ("xz", "unxz"),
    b"\x5d\x00\x00": ("lzma", "unlzma"),
    b"LZIP": ("lzip", "lzip -d"),
    b"\x89LZO": ("lzop", "lzop -d"),
    b"\x28\xb5\x2f\xfd": ("zstandard", "zstd -d"),
    b"\x04\x22\x4d\x18": ("lz4", "lz4 -d"),
}
PACK_AGAIN = "unpack it into a folder ({}) and pack that: scripts/prepare_dataset.py --images FOLDER"
OTHER_FILES = {  # how they begin, what they are and what to do
    b"PK\x03\x04": ("a zip archive", PACK_AGAIN.format("unzip")),
    b"PK\x05\x06": ("an empty zip archive", "find the right file"),
    b"7z\xbc\xaf\x27\x1c": ("a 7-Zip archive", PACK_AGAIN.format("7z x")),
    b"Rar!\x1a\x07": ("a RAR archive", PACK_AGAIN.format("unrar x")),
    b"07070": ("a cpio archive", PACK_AGAIN.format("cpio -idm")),
    b"!<arch>\n": ("an ar archive", PACK_AGAIN.format("ar x")),
    b"\x89HDF": ("an HDF5 file", "name it as a data set, HDF5:file=..., if it has tiles"),
    b"PAR1": ("a Parquet file", "write its images into a folder and pack that"),
    b"II*\0": ("a TIFF file or slide", "cut slides into tiles first"),
    b"MM\0*": ("a TIFF file or slide", "cut slides into tiles first"),
    b"II+\0": ("a TIFF file or slide", "cut slides into tiles first"),
    b"version https://git-lfs": ("what Git LFS leaves in place of a file", "fetch the file with git lfs pull"),
    b"<!DOCTYPE": ("a web page", "the download went wrong: get it again, with a login if it needs one"),
    b"<html": ("a web page", "the download went wrong: get it again, with a login if it needs one"),
}


def parse_size(field: bytes) -> int:
    """Bytes of data that the 12-byte size field promises; octal digits or base-256.

    Raises:
        ValueError: not a number, negative or beyond 2**62; the text is the reason.
    """
    if field[0] in (0x80, 0xFF):
        value = int.from_bytes(field[1:], "big", signed=False) if field[0] == 0x80 else -1
    else:
        value = _parse_octal(field)
    if value < 0:
        raise ValueError("its size is negative")
    if value > LARGEST_SIZE:
        raise ValueError(f"its size of {value:,} bytes is beyond any disk")
    return value


def _parse_octal(field: bytes) -> int:
    """Leading spaces, octal digits, then only spaces or NULs; an empty field is 0."""
    digits = field.lstrip(b" ").rstrip(b"\0 ")
    if not digits:
        return 0
    if digits.strip(b"01234567"):
        raise ValueError(f"its size field is not a number: {field.hex(' ')}")
    return int(digits, 8)


def checksums_match(headers: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Whether each header's checksum field agrees with its bytes.

    Args:
        headers: (n, 512) uint8.
    Returns:
        (n,) bool. Both sums in use are accepted: of unsigned bytes (POSIX) and of signed ones (some old tars).
    """
    fields = np.ascontiguousarray(headers[:, CHECKSUM_FIELD])
    stored = _usual_checksums(fields)
    for row in np.flatnonzero(stored < 0):
        stored[row] = _unusual_checksum(fields[row].tobytes())
    blanked = 8 * ord(" ") - fields.sum(axis=1, dtype=np.int64)
    match = stored == headers.sum(axis=1, dtype=np.uint32) + blanked
    for row in np.flatnonzero(~match & (stored >= 0)):
        rest = np.delete(headers[row], np.arange(CHECKSUM_FIELD.start, CHECKSUM_FIELD.stop))
        match[row] = stored[row] == int(rest.view(np.int8).sum(dtype=np.int64)) + 8 * ord(" ")
    return match


def _usual_checksums(fields: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Checksums written as nearly all tools do, six octal digits, NUL, space; -1 where the field looks different.

    Args:
        fields: (n, 8) uint8.
    Returns:
        (n,) int64.
    """
    digits = fields[:, :6] - np.uint8(ord("0"))
    usual = (digits < 8).all(axis=1) & (fields[:, 6] == 0) & (fields[:, 7] == ord(" "))
    values = np.zeros(len(fields), np.int64)
    for column in range(6):
        values = values * 8 + digits[:, column]
    return np.where(usual, values, -1)


def _unusual_checksum(field: bytes) -> int:
    """A checksum in any other well-formed notation; -2 for a field that is empty or not a number."""
    try:
        return _parse_octal(field) if field.strip(b"\0 ") else -2
    except ValueError:
        return -2


def parse_pax(payload: bytes) -> dict[bytes, bytes]:
    """The records "length keyword=value\\n" of a pax extended header.

    Raises:
        ValueError: a record does not have the length it claims; the text is the reason.
    """
    records: dict[bytes, bytes] = {}
    at, length = 0, len(payload)
    while at < length:
        space = payload.find(b" ", at, at + 8)
        digits = payload[at:space]
        if space < 0 or not digits.isdigit():
            raise ValueError(f"its extended header has no record length at byte {at:,}")
        end = at + int(digits)
        keyword, equals, value = payload[space + 1 : end - 1].partition(b"=")
        if not at < end <= length or payload[end - 1] != NEWLINE or not equals or not keyword:
            raise ValueError(f"its extended header has a damaged record at byte {at:,}")
        records[keyword] = value
        at = end
    return records
