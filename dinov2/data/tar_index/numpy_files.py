"""Entries and name files in NumPy's `.npy` form: read without trusting them, written in a stream.

`entries.npy` is a plain uint64 array. `file_indices.npy`, `class-ids.npy` and `cohort_indices.npy` are, since
the tools that read them expect it, pickled object arrays. Their pickles are written here opcode by opcode, so
that ten million names never stand in memory together; they are read back by
`dinov2.data.tar_index.name_files`, which executes nothing.
"""

import math
import os
import re
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import SideFileError, show_name

HEADER_BYTES = 128
LARGEST_HEADER = 10_000
HEADER = re.compile(
    rb"\{'descr': '([|<>=]?[A-Za-z]\d{0,2})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,19}, ?)*(?:\d{1,19})?)\), \} *\n"
)
LARGEST_KEY = 2**31 - 1
PAIR = np.dtype([("key_code", "u1"), ("key", "<i4"), ("text_code", "u1"), ("length", "<u4")])
BININT, BINUNICODE, MARK, SETITEMS, APPENDS, LONG1 = b"J", b"X", b"(", b"u", b"e", b"\x8a"


@dataclass(frozen=True)
class ArrayHeader:
    """What stands at the top of a `.npy` file; `offset` is where the data begin, in bytes."""

    descr: str
    fortran_order: bool
    shape: tuple[int, ...]
    offset: int


def read_header(file: BinaryIO) -> ArrayHeader:
    """The header of a `.npy` file, version 1 or 2, parsed without evaluating it.

    Raises:
        ValueError: it is not one; the text is the reason.
    """
    magic = file.read(8)
    if magic[:6] != b"\x93NUMPY" or magic[6:] not in (b"\x01\x00", b"\x02\x00"):
        raise ValueError("it does not begin like a .npy file")
    width = 2 if magic[6] == 1 else 4
    length = int.from_bytes(file.read(width), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header claims {length:,} bytes")
    found = HEADER.fullmatch(file.read(length))
    if found is None:
        raise ValueError("its header is damaged")
    descr, fortran, shape = (group.decode() for group in found.groups())
    return ArrayHeader(
        descr, fortran == "True", tuple(int(n) for n in shape.replace(",", " ").split()), 8 + width + length
    )


def load_entries(path: str | Path) -> NDArray[np.uint64]:
    """The entries of an archive, memory-mapped and read-only.

    Returns:
        (n, 4) uint64: label, file index, start and end byte; (n, 5) with the cohort index after `concat_entries`.
        The fork's empty file of shape (0,) is given as (0, 4).
    """
    shape: tuple[int, ...]
    header = check_array(path, dtype="<u8")
    shape = (0, 4) if header.shape == (0,) else header.shape
    if len(shape) != 2 or shape[1] not in (4, 5):
        raise _bad_array(path, f"expected shape (n, 4) or (n, 5), got {shape}")
    return _map_array(path, header, shape=shape)


def load_vector(path: str | Path, *, dtype: str) -> NDArray[Any]:
    """A one-dimensional side file (n,), memory-mapped and read-only, such as the CRC-32 values (`<u4`)."""
    header = check_array(path, dtype=dtype)
    if len(header.shape) != 1:
        raise _bad_array(path, f"expected shape (n,), got {header.shape}")
    return _map_array(path, header, shape=header.shape)


def load_table(path: str | Path, *, columns: int) -> NDArray[np.uint64]:
    """A side file (n, columns) uint64, memory-mapped and read-only, such as the runs of groups."""
    header = check_array(path, dtype="<u8")
    if len(header.shape) != 2 or header.shape[1] != columns:
        raise _bad_array(path, f"expected shape (n, {columns}), got {header.shape}")
    return _map_array(path, header, shape=header.shape)


def check_array(path: str | Path, *, dtype: str) -> ArrayHeader:
    """The header of an array file, after checking that the file has what it promises; nothing is allocated.

    Raises:
        SideFileError: the file is missing or damaged, or has another dtype.
    """
    try:
        with open(path, "rb") as file:
            header, size = read_header(file), os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise SideFileError(f"{show_name(path)} does not exist. Make it with scripts/infer_entries.py.") from error
    except (OSError, ValueError) as error:
        raise _bad_array(path, str(error)) from error
    if header.descr != dtype or header.fortran_order:
        raise _bad_array(path, f"expected elements of type {dtype} in C order, got {header.descr}")
    promised = header.offset + math.prod(header.shape) * np.dtype(dtype).itemsize
    if promised != size:
        raise _bad_array(path, f"its header promises {promised:,} bytes, the file has {size:,}")
    return header


def _map_array(path: str | Path, header: ArrayHeader, *, shape: tuple[int, ...]) -> NDArray[Any]:
    if not math.prod(shape):
        return np.zeros(shape, header.descr)
    return np.memmap(path, header.descr, "r", header.offset, shape)


def _bad_array(path: str | Path, reason: str) -> SideFileError:
    return SideFileError(f"{show_name(path)} cannot be used: {reason}. Make it again with scripts/infer_entries.py.")


class ArrayWriter:
    """Writes a two- or one-dimensional array of unknown length row by row.

    Args:
        file: open for writing, empty.
        dtype: of the elements.
        columns: width of a row; None for a one-dimensional array.
    """

    def __init__(self, file: BinaryIO, *, dtype: str = "<u8", columns: int | None = 4):
        self.rows = 0
        self._file, self._dtype, self._columns = file, np.dtype(dtype), columns
        file.write(bytes(HEADER_BYTES))

    def append(self, rows: NDArray[np.generic]) -> None:
        """Add rows (n, columns), or elements (n,)."""
        self._file.write(np.ascontiguousarray(rows, self._dtype).tobytes())
        self.rows += len(rows)

    def close(self) -> None:
        """Put the true length into the header."""
        shape = (self.rows,) if self._columns is None else (self.rows, self._columns)
        self._file.seek(0)
        self._file.write(_array_header(self._dtype.str, shape))
        self._file.seek(0, os.SEEK_END)


def _array_header(descr: str, shape: tuple[int, ...]) -> bytes:
    """A version 1.0 `.npy` header of exactly 128 bytes."""
    text = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER_BYTES - 10) + text.ljust(HEADER_BYTES - 11).encode() + b"\n"


class NameDictWriter:
    """Writes the pickled 0-d array around a dictionary {0: name, 1: name, ...} in a stream."""

    def __init__(self, file: BinaryIO):
        self.count = 0
        self._file = file
        file.write(_array_header("|O", ()) + _object_array_head(()) + b"]}")

    def append(self, names: Sequence[bytes]) -> None:
        """Add UTF-8 names under the next numbers; other bytes become surrogates, as in Python's file names."""
        if self.count + len(names) > LARGEST_KEY:
            raise SideFileError(
                f"the archive has more than {LARGEST_KEY:,} files, which the file-index form cannot number. Split it."
            )
        names = _as_unicode(names)
        pairs = np.empty(len(names), PAIR)
        pairs["key_code"], pairs["text_code"] = BININT[0], BINUNICODE[0]
        pairs["key"] = np.arange(self.count, self.count + len(names))
        pairs["length"] = np.fromiter(map(len, names), np.uint32, len(names))
        parts = [b""] * (2 * len(names))
        parts[0::2] = pairs.view(f"V{PAIR.itemsize}").tolist()
        parts[1::2] = names
        self._file.write(MARK + b"".join(parts) + SETITEMS)
        self.count += len(names)

    def close(self) -> None:
        """Finish the pickle: the list of one dictionary becomes the array's state."""
        self._file.write(b"a" + _OBJECT_ARRAY_TAIL)


def write_object_array(file: BinaryIO, rows: Iterable[Sequence[int | str]], *, shape: tuple[int, ...]) -> None:
    """Write a small pickled object array of whole numbers and texts, row by row, such as `class-ids.npy`."""
    file.write(_array_header("|O", shape) + _object_array_head(shape) + b"]" + MARK)
    for row in rows:
        file.write(b"".join(_encode(value) for value in row))
    file.write(APPENDS + _OBJECT_ARRAY_TAIL)


def write_name_dict(file: BinaryIO, names: Sequence[str]) -> None:
    """Write a small {0: name, 1: name, ...}, such as `cohort_indices.npy`."""
    writer = NameDictWriter(file)
    writer.append([name.encode("utf-8", "surrogateescape") for name in names])
    writer.close()


def _as_unicode(names: Sequence[bytes]) -> Sequence[bytes]:
    """UTF-8 as pickle spells it, in which undecodable bytes stand as surrogates."""
    try:
        b"\0".join(names).decode()
    except UnicodeDecodeError:
        return [name.decode("utf-8", "surrogateescape").encode("utf-8", "surrogatepass") for name in names]
    return names


def _encode(value: int | str) -> bytes:
    """Pickle opcodes of one number or text."""
    if isinstance(value, str):
        text = value.encode("utf-8", "surrogatepass")
        return BINUNICODE + struct.pack("<I", len(text)) + text
    number = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return LONG1 + struct.pack("<B", len(number)) + number


def _object_array_head(shape: tuple[int, ...]) -> bytes:
    """Pickle, protocol 3, of an object array up to its list of elements.

    It names `numpy.core`, which NumPy 1 and 2 both load; NumPy 2 itself would write `numpy._core`, which
    NumPy 1.24 does not know.
    """
    reconstruct = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    dtype = (
        b"cnumpy\ndtype\n"
        + _encode("O8")
        + b"\x89\x88\x87R(K\x03"
        + _encode("|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK?tb"
    )
    sizes = MARK + b"".join(_encode(length) for length in shape) + b"t"
    return b"\x80\x03" + reconstruct + MARK + b"K\x01" + sizes + dtype + b"\x89"


_OBJECT_ARRAY_TAIL = b"tb."
