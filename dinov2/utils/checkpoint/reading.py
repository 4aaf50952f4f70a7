"""Tensors out of a checkpoint folder, by one process."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from .files import StoredPiece, read_pieces
from .manifest import DamagedError, check_files, read_manifest

VALUES = "state.json"  # what is no tensor; every other file of a folder is one of tensors


def read_tensors(folder: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint folder that is what was written, in host memory.

    Raises:
        DamagedError: if it is not.
    """
    try:
        manifest = read_manifest(folder)
        check_files(folder, manifest, sorted(manifest.files))
        pieces = stored_pieces(folder, manifest.files)
    except DamagedError as damage:
        raise DamagedError(f"checkpoint {folder} cannot be used: {damage}") from damage
    return assemble(pieces)


def stored_pieces(folder: Path, names: Iterable[str]) -> list[StoredPiece]:
    """What the files of tensors have, which are all of a folder's but `VALUES`.

    Raises:
        DamagedError: if they are no such files, or lack a part of a tensor.
    """
    try:
        shards = [name for name in sorted(names) if name != VALUES]
        pieces = [piece for name in shards for piece in read_pieces(folder / name)]
    except Exception as error:  # files that hold something else than this program writes
        raise DamagedError(f"it is no checkpoint of this program ({error})") from error
    _check_whole(pieces)
    return pieces


def assemble(pieces: Sequence[StoredPiece]) -> dict[str, Tensor]:
    """Whole tensors by name, from all their pieces."""
    from safetensors import safe_open

    tensors = {piece.name: torch.empty(piece.shape, dtype=piece.dtype) for piece in pieces}
    for piece in pieces:
        box = tuple(slice(start, start + size) for start, size in zip(piece.offsets, piece.sizes))
        with safe_open(piece.file, framework="pt") as file:
            tensors[piece.name][box] = file.get_tensor(piece.name)
    return tensors


def _check_whole(pieces: Sequence[StoredPiece]) -> None:
    """Refuse tensors of which a part is missing or that the pieces do not agree about."""
    parts = defaultdict(list)
    for piece in pieces:
        parts[piece.name].append(piece)
    for name, group in parts.items():
        sizes = sum(prod(piece.sizes) for piece in group)
        if len({(piece.dtype, piece.shape) for piece in group}) > 1 or sizes != prod(group[0].shape):
            raise DamagedError(f"the pieces of {name} do not make one whole tensor")
