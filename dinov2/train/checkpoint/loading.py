"""A checkpoint on disk: verified first, read afterwards, on any number of processes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from dinov2.distributed import get_global_rank, get_global_size
from dinov2.distributed.outcomes import on_all
from dinov2.utils.checkpoint import DamagedError, Manifest, StoredPiece, assemble, stored_pieces
from dinov2.utils.checkpoint.manifest import check_files, read_manifest
from dinov2.utils.checkpoint.reading import VALUES

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
        return assemble(self._pieces)

    def _verify(self, step: int | None) -> Manifest:
        manifest = read_manifest(self.path)
        if step is not None and manifest.step != step:
            raise DamagedError(f"it holds step {manifest.step:,}, not step {step:,}")
        share = sorted(manifest.files)[get_global_rank() :: get_global_size()]
        check_files(self.path, manifest, share)
        return manifest

    def _open(self) -> tuple[dict[str, Any], list[StoredPiece]]:
        pieces = stored_pieces(self.path, self.manifest.files)
        try:
            values = json.loads((self.path / VALUES).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise DamagedError(f"it is no checkpoint of this program ({error})") from error
        if not isinstance(values, dict):
            raise DamagedError(f"it is no checkpoint of this program ({VALUES} holds no named values)")
        return values, pieces
