"""Stand-ins for what training checkpoints pickle beside their weights.

torch's weights-only reader calls nothing but what it knows. Checkpoints of DINO, DINOv2 and timm also hold numbers of
NumPy, the arguments of the command and, from sharded runs, `ShardedTensor`s with their layout. Under the names of
those classes the reader is given the classes below, which remember nothing and do nothing, so that the weights beside
them can be read while the real classes stay out of reach; any other name is still refused.
"""

import re
from typing import Any

import torch
from torch import Tensor

_NUMBER = re.compile(r"[fiub][1248]")


class Skipped:
    """Takes the place of an object that is not read."""

    def __new__(cls, *args: Any, **kwargs: Any) -> "Skipped":
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Arguments are accepted and dropped."""

    def __setstate__(self, state: Any) -> None:
        """A state is accepted and dropped."""


def skipped_attribute(*args: Any) -> type[Skipped]:
    """Takes the place of `getattr`, by which pickles name classes and values inside other classes."""
    return Skipped


class SkippedTensor(Tensor):
    """Takes the place of a tensor that was spread over processes; it has no values."""

    def __setstate__(self, state: Any) -> None:
        """A state is accepted and dropped."""

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # type: ignore[override]
        """Nothing can be computed with it."""
        raise RuntimeError("a tensor that was spread over processes was not read and has no values")


class NumpyDtype:
    """The type of a NumPy number, as far as reading the number needs it."""

    def __init__(self, code: str, *flags: Any) -> None:
        self.code = code
        self.order = "<"

    def __setstate__(self, state: Any) -> None:
        """Take the byte order, the second of the state's fields."""
        if isinstance(state, tuple) and len(state) > 1 and state[1] == ">":
            self.order = ">"


def numpy_number(dtype: NumpyDtype, data: Any = b"") -> float | int | bool | None:
    """A NumPy number as a plain one; None for one of a type that is no number."""
    import numpy as np

    if not isinstance(dtype, NumpyDtype) or not isinstance(data, bytes) or not _NUMBER.fullmatch(str(dtype.code)):
        return None
    kind = np.dtype(f"{dtype.order}{dtype.code}")
    return np.frombuffer(data, kind)[0].item() if len(data) == kind.itemsize else None


_SHARDS = "torch.distributed._shard"
_SKIPPED_NAMES = (
    "argparse.Namespace",
    "pathlib.PosixPath",
    "pathlib._local.PosixPath",
    "numpy.ndarray",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    # What a ShardedTensor refers to.
    f"{_SHARDS}.sharded_tensor.shard.Shard",
    f"{_SHARDS}.sharded_tensor.metadata.ShardedTensorMetadata",
    f"{_SHARDS}.sharded_tensor.metadata.TensorProperties",
    f"{_SHARDS}.sharded_tensor.metadata.MEM_FORMAT_ENCODING",
    f"{_SHARDS}.sharded_tensor.api.TensorProperties",
    f"{_SHARDS}.metadata.ShardMetadata",
    f"{_SHARDS}.sharding_spec.api.EnumerableShardingSpec",
    f"{_SHARDS}.sharding_spec.chunk_sharding_spec.ChunkShardingSpec",
    "torch.distributed.remote_device._remote_device",
)

STAND_INS: list[Any] = [
    *((Skipped, name) for name in _SKIPPED_NAMES),
    (SkippedTensor, f"{_SHARDS}.sharded_tensor.api.ShardedTensor"),
    (skipped_attribute, "builtins.getattr"),
    (NumpyDtype, "numpy.dtype"),
    (numpy_number, "numpy.core.multiarray.scalar"),
    (numpy_number, "numpy._core.multiarray.scalar"),
]


def is_weight(value: Any) -> bool:
    """Whether a value that was read is a tensor with values."""
    return isinstance(value, Tensor) and not isinstance(value, SkippedTensor) and value.layout == torch.strided
