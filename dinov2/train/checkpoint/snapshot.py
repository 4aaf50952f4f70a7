"""What a checkpoint holds, before it is on disk."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dinov2.utils.checkpoint import Piece


@dataclass(frozen=True)
class Snapshot:
    """A state: tensors, sharded or not, by name, and what is no tensor as plain values of JSON.

    Attributes:
        kept: steps whose checkpoints stay when that of this state is complete. It has to follow from the state, so
            that they also stay when a run goes on from its checkpoint.
    """

    tensors: Mapping[str, Tensor]
    values: Mapping[str, Any]
    config_digest: str = ""
    kept: frozenset[int] = frozenset()


class HostCopies:
    """Copies of tensors in host memory, so that the originals may change; every save uses the same memory again."""

    def __init__(self) -> None:
        self._buffers: dict[str, Tensor] = {}

    def take(self, pieces: Sequence[Piece]) -> list[Piece]:
        """Copy pieces; when this returns, the originals may change."""
        self._buffers = {piece.name: self._buffer(piece) for piece in pieces}
        for piece in pieces:
            self._buffers[piece.name].copy_(piece.data, non_blocking=True)
        if any(piece.data.is_cuda for piece in pieces):
            torch.cuda.synchronize()
        return [replace(piece, data=self._buffers[piece.name]) for piece in pieces]

    def _buffer(self, piece: Piece) -> Tensor:
        buffer = self._buffers.get(piece.name)
        if buffer is not None and buffer.shape == piece.data.shape and buffer.dtype == piece.data.dtype:
            return buffer
        # Pinned memory lets the GPU copy at full speed, and all tensors in one go.
        return torch.empty(piece.data.shape, dtype=piece.data.dtype, pin_memory=piece.data.is_cuda)


def state_digest(tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of a whole state in the order of names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    digest.update(json_digest(values).encode())
    return digest.hexdigest()


def json_digest(values: Any) -> str:
    """SHA-256 of plain values, whatever the order of their keys."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
