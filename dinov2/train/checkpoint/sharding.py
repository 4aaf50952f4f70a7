"""Which part of which tensor each rank writes and reads, planned by `torch.distributed.checkpoint`.

Its planners know sharded tensors, let one rank write what many hold, and find the saved parts that a differently
sharded tensor needs. Its storage is replaced: it keeps its index as a pickle, which can carry code.
"""

import os
import warnings
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint import DefaultLoadPlanner, DefaultSavePlanner
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    TensorProperties,
    TensorStorageMetadata,
)
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner, SavePlan, SavePlanner
from torch.distributed.checkpoint.storage import WriteResult
from torch.futures import Future

from dinov2.distributed.outcomes import SharedError
from dinov2.utils.checkpoint import Piece, StoredPiece


def own_pieces(tensors: Mapping[str, Tensor]) -> list[Piece]:
    """The pieces that this rank writes; together the ranks write everything once. All ranks call it.

    The pieces share memory with the tensors.

    Raises:
        SharedError: on all ranks, if one of them cannot plan.
    """
    collector = _PieceCollector()
    with _explained():
        dcp.save(dict(tensors), storage_writer=collector, planner=DefaultSavePlanner(flatten_state_dict=False))
    return collector.pieces


def read_into(tensors: Mapping[str, Tensor], pieces: Sequence[StoredPiece]) -> None:
    """Fill tensors in place from pieces, which may be cut in another way. All ranks call it.

    Raises:
        SharedError: on all ranks, if one of them cannot read.
    """
    with _explained():
        dcp.load(
            dict(tensors), storage_reader=_PieceReader(pieces), planner=DefaultLoadPlanner(flatten_state_dict=False)
        )


@contextmanager
def _explained() -> Iterator[None]:
    """Work without a process group, without torch's warning about it, and with ordinary exceptions."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is disabled")
            yield
    except CheckpointException as error:
        reasons = "; ".join(f"rank {rank}: {failure[0]!r}" for rank, failure in error.failures.items())
        raise SharedError(f"the state cannot be saved or loaded ({reasons})") from error


class _PieceCollector(dcp.StorageWriter):
    """Takes what the plan gives this rank to write, and writes nothing."""

    def __init__(self) -> None:
        self.pieces: list[Piece] = []

    def write_data(self, plan: SavePlan, planner: SavePlanner) -> Future[list[WriteResult]]:
        """Look up the tensors of the plan."""
        for item in plan.items:
            assert item.tensor_data is not None
            data = planner.resolve_data(item)
            assert isinstance(data, Tensor)
            if data.numel():
                shape, offsets = tuple(item.tensor_data.size), tuple(item.tensor_data.chunk.offsets)
                self.pieces.append(Piece(item.index.fqn, data.detach(), shape, offsets))
        return _done([])

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        """Forget what was collected."""
        self.pieces = []

    def set_up_storage_writer(self, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: SavePlan) -> SavePlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[SavePlan]) -> list[SavePlan]:
        """Leave the plans as they are."""
        return plans

    def finish(self, metadata: Metadata, results: list[list[WriteResult]]) -> None:
        """Nothing to finish: the files say themselves what they hold."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        """Folders are chosen elsewhere."""
        return False


class _PieceReader(dcp.StorageReader):
    """Reads stored pieces, or parts of them."""

    def __init__(self, pieces: Sequence[StoredPiece]) -> None:
        self.pieces = {(piece.name, piece.offsets): piece for piece in pieces}

    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The pieces in torch's words."""
        parts: dict[str, list[StoredPiece]] = defaultdict(list)
        for piece in self.pieces.values():
            parts[piece.name].append(piece)
        return Metadata({name: _tensor_metadata(pieces) for name, pieces in parts.items()})

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        """Copy what the plan asks for, file after file."""
        from safetensors import safe_open

        by_file = defaultdict(list)
        for item in plan.items:
            by_file[self._piece(item.storage_index).file].append(item)
        for path, items in by_file.items():
            with safe_open(path, framework="pt") as file:
                for item in items:
                    box = tuple(slice(start, start + n) for start, n in zip(item.storage_offsets, item.lengths))
                    target = planner.resolve_tensor(item).detach()
                    name = item.storage_index.fqn
                    target.copy_(file.get_slice(name)[box] if box else file.get_tensor(name))
                    planner.commit_tensor(item, target)
        return _done(None)

    def _piece(self, index: MetadataIndex) -> StoredPiece:
        assert index.offset is not None
        return self.pieces[index.fqn, tuple(index.offset)]

    def reset(self, checkpoint_id: str | os.PathLike | None = None) -> None:
        """Nothing to forget."""

    def set_up_storage_reader(self, metadata: Metadata, is_coordinator: bool, *args: Any, **kwargs: Any) -> None:
        """Nothing to set up."""

    def prepare_local_plan(self, plan: LoadPlan) -> LoadPlan:
        """Leave the plan as it is."""
        return plan

    def prepare_global_plan(self, plans: list[LoadPlan]) -> list[LoadPlan]:
        """Leave the plans as they are."""
        return plans

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike) -> bool:
        """Folders are chosen elsewhere."""
        return False


def _tensor_metadata(pieces: Sequence[StoredPiece]) -> TensorStorageMetadata:
    chunks = [ChunkStorageMetadata(torch.Size(piece.offsets), torch.Size(piece.sizes)) for piece in pieces]
    return TensorStorageMetadata(TensorProperties(dtype=pieces[0].dtype), torch.Size(pieces[0].shape), chunks)


def _done(value: Any) -> Future[Any]:
    future: Future[Any] = Future()
    future.set_result(value)
    return future
