"""The dtypes that a configuration can name, and what a device computes in."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that matrix products run in on a device.

    "auto" is float32 on a CPU, bfloat16 on a GPU, and float16 on a GPU without bfloat16 units (before
    Ampere). float16 has no fast products on CPUs and would need a loss scaler there; a CPU computes it in
    float32.
    """
    if name == "auto":
        return torch.float32 if device.type == "cpu" else _fast_dtype_of_gpu()
    dtype = _DTYPES[name]
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype


def _fast_dtype_of_gpu() -> torch.dtype:
    has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    return torch.bfloat16 if has_bfloat16 else torch.float16


@contextmanager
def full_float32() -> Iterator[None]:
    """Compute float32 matrix products of the block in float32, where a run allows TF32."""
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed


def autocast(name: str, device: torch.device) -> torch.autocast:
    """A context in which a device computes in the named dtype; parameters stay as they are."""
    dtype = compute_dtype(name, device)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)
