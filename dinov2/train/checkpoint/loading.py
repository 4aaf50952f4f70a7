"""A checkpoint on disk: verified first, read afterwards, on any number of processes."""

import json
from collections import defaultdict
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dinov2.distributed import get_global_rank, get_global_size
from dinov2.distributed.outcomes import on_all

from .files import StoredPiece, read_pieces
from .manifest import DamagedError, Manifest, check_files, read_manifest
from .saving import VALUES
from .sharding import read_into


class TensorKind(NamedTuple):
    """What a saved tensor is."""

    dtype: torch.dtype
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{str(self.dtype).removeprefix('torch.')} {self.shape}"


class SavedCheckpoint:
    """A checkpoint whose files are what was written."""

    def __init__(self, path: Path, step: int | None = None) -> None:
        """Verify and open a folder; all ranks call it and verify a share of the files each.

        Args:
            step: which step it must be of, if that is known.
        Raises:
            DamagedError: on all ranks, if it is not what was written.
            UserError: if it was made by another version.
        """
        self.path = path
        try:
            self.manifest = on_all(lambda: self._verify(step))
            self.values, self._pieces = on_all(self._open)
        except DamagedError as damage:
            raise DamagedError(f"checkpoint {path} cannot be used: {damage}") from damage

    @property
    def tensors(self) -> dict[str, TensorKind]:
        """The saved tensors by name."""
        return {piece.name: TensorKind(piece.dtype, piece.shape) for piece in self._pieces}

    def read_into(self, tensors: Mapping[str, Tensor]) -> None:
        """Fill tensors of the saved names and shapes, sharded or not, in place; all ranks call it."""
        read_into(tensors, self._pieces)

    def read_all(self) -> dict[str, Tensor]:
        """All tensors as they are, in host memory; one process may call it alone."""
        from safetensors import safe_open

        tensors = {name: torch.empty(kind.shape, dtype=kind.dtype) for name, kind in self.tensors.items()}
        for piece in self._pieces:
            box = tuple(slice(start, start + size) for start, size in zip(piece.offsets, piece.sizes))
            with safe_open(piece.file, framework="pt") as file:
                tensors[piece.name][box] = file.get_tensor(piece.name)
        return tensors

    def _verify(self, step: int | None) -> Manifest:
        manifest = read_manifest(self.path)
        if step is not None and manifest.step != step:
            raise DamagedError(f"it holds step {manifest.step:,}, not step {step:,}")
        share = sorted(manifest.files)[get_global_rank() :: get_global_size()]
        check_files(self.path, manifest, share)
        return manifest

    def _open(self) -> tuple[dict[str, Any], list[StoredPiece]]:
        try:
            values = json.loads((self.path / VALUES).read_text(encoding="utf-8"))
            shards = [name for name in sorted(self.manifest.files) if name != VALUES]
            pieces = [piece for name in shards for piece in read_pieces(self.path / name)]
        except Exception as error:  # files that hold something else than this program writes
            raise DamagedError(f"it is no checkpoint of this program ({error})") from error
        if not isinstance(values, dict):
            raise DamagedError(f"it is no checkpoint of this program ({VALUES} holds no named values)")
        _check_whole(pieces)
        return values, pieces


def _check_whole(pieces: list[StoredPiece]) -> None:
    """Refuse tensors of which a part is missing or that the pieces do not agree about."""
    parts = defaultdict(list)
    for piece in pieces:
        parts[piece.name].append(piece)
    for name, group in parts.items():
        sizes = sum(prod(piece.sizes) for piece in group)
        if len({(piece.dtype, piece.shape) for piece in group}) > 1 or sizes != prod(group[0].shape):
            raise DamagedError(f"the pieces of {name} do not make one whole tensor")
