"""Files of a checkpoint: written, hashed and flushed in one pass; tensors in the safetensors layout.

A safetensors file is a JSON header and raw bytes, so that nothing in it can run code. It is written here rather than
by the safetensors library, which would build a second copy of all tensors in memory and leave the hash to another
pass over the file; the library reads it.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.utils.faults import fault_point

BLOCK = 1 << 22  # bytes read or written at a time, few enough to be hashed out of the processor's cache
PIECES = "pieces"  # the entry of a header that says where pieces belong

# How safetensors spells dtypes.
DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class FileRecord:
    """What a file must be to count as whole."""

    bytes: int
    sha256: str


@dataclass(frozen=True)
class Piece:
    """A part of a tensor: a box of the whole, which starts at `offsets` of a tensor of `shape`."""

    name: str
    data: Tensor
    shape: tuple[int, ...]
    offsets: tuple[int, ...]


@dataclass(frozen=True)
class StoredPiece:
    """Where a piece is, and where it belongs."""

    name: str
    file: Path
    dtype: torch.dtype
    sizes: tuple[int, ...]
    shape: tuple[int, ...]
    offsets: tuple[int, ...]


def write_file(path: Path, blocks: Iterable[bytes | memoryview]) -> FileRecord:
    """Write a file that is not there yet and wait until it is on disk."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb") as file:
        for block in blocks:
            digest.update(block)
            size += file.write(block)
        fault_point("file.before_fsync")
        file.flush()
        os.fsync(file.fileno())
    return FileRecord(size, digest.hexdigest())


def hash_file(path: Path) -> FileRecord:
    """What a file is."""
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            size += len(block)
    return FileRecord(size, digest.hexdigest())


def tensor_blocks(pieces: Sequence[Piece]) -> Iterator[bytes | memoryview]:
    """The bytes of a safetensors file; a piece on a GPU is fetched when its turn comes."""
    # The widest first, so that every piece begins at a multiple of its element's size.
    pieces = sorted(pieces, key=lambda piece: (-piece.data.element_size(), piece.name))
    yield _header(pieces)
    for number, piece in enumerate(pieces):
        if number == len(pieces) // 2:
            fault_point("shard.half_written")
        flat = piece.data.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
        for start in range(0, len(flat), BLOCK):
            yield flat[start : start + BLOCK]


def _header(pieces: Sequence[Piece]) -> bytes:
    places = {piece.name: {"shape": piece.shape, "offsets": piece.offsets} for piece in pieces}
    header: dict[str, Any] = {"__metadata__": {PIECES: json.dumps(places)}}
    end = 0
    for piece in pieces:
        begin, end = end, end + piece.data.nbytes
        entry = {"dtype": DTYPES[piece.data.dtype], "shape": piece.data.shape, "data_offsets": (begin, end)}
        header[piece.name] = entry
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_pieces(path: Path) -> list[StoredPiece]:
    """What a file of tensors has, from its header alone."""
    from safetensors import safe_open

    dtypes = {spelling: dtype for dtype, spelling in DTYPES.items()}
    with safe_open(path, framework="pt") as file:
        places = json.loads(file.metadata()[PIECES])
        return [
            StoredPiece(
                name,
                path,
                dtype=dtypes[file.get_slice(name).get_dtype()],
                sizes=tuple(file.get_slice(name).get_shape()),
                shape=tuple(place["shape"]),
                offsets=tuple(place["offsets"]),
            )
            for name, place in places.items()
        ]
