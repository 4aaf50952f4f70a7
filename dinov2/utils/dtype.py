"""The dtypes that a configuration can name, and what a device computes in."""

import torch

_DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}


def compute_dtype(name: str, device: torch.device) -> torch.dtype:
    """The dtype that matrix products run in on a device.

    "auto" is bfloat16 on a GPU and float32 on a CPU. float16 has no fast products on CPUs and would
    need a loss scaler there; a CPU computes it in float32.
    """
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = _DTYPES[name]
    return torch.float32 if device.type == "cpu" and dtype == torch.float16 else dtype


def autocast(name: str, device: torch.device) -> torch.autocast:
    """A context in which a device computes in the named dtype; parameters stay as they are."""
    dtype = compute_dtype(name, device)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)
