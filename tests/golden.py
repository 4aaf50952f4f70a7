"""The rule that golden weights and inputs are made by: a standard-normal array is a function of its tag.

The figures in `parity/goldens` were computed by the reference implementation (facebookresearch/dinov2 at
b8931f7, float32, CPU, one process) from weights and inputs of this rule.
"""

import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

GOLDENS = Path(__file__).parent / "parity" / "goldens"


def load_figures(case: str) -> dict[str, np.ndarray]:
    """All arrays of one golden file."""
    with np.load(GOLDENS / f"{case}.npz") as file:
        return dict(file)


def load_json(name: str) -> Any:
    """One golden JSON file."""
    return json.loads((GOLDENS / f"{name}.json").read_text())


def normal(tag: str, shape: tuple[int, ...]) -> Tensor:
    """Standard-normal float32 tensor, seeded with the CRC-32 of the tag."""
    rng = np.random.default_rng(zlib.crc32(tag.encode()))
    return torch.from_numpy(rng.standard_normal(shape).astype(np.float32))


def fill(module: nn.Module, salt: str) -> None:
    """Give every weight its golden value: around 1 for scales, around 0 otherwise; centres stay."""
    with torch.no_grad():
        for key, tensor in module.state_dict().items():
            if key.endswith("center"):
                continue
            noise = normal(f"{salt}:{key}", tuple(tensor.shape))
            is_scale = key.endswith(("gamma", "weight_g")) or (key.endswith("weight") and tensor.ndim == 1)
            tensor.copy_((1 + 0.1 * noise.double() if is_scale else 0.05 * noise).float())


def assert_close(actual: Tensor | np.ndarray, expected: np.ndarray, tolerance: float) -> None:
    """Largest difference, relative to the largest expected value."""
    actual = np.asarray(actual.detach() if isinstance(actual, Tensor) else actual)
    assert actual.shape == expected.shape
    scale = np.abs(expected).max() if expected.size else 1.0
    assert expected.size == 0 or np.abs(actual - expected).max() <= tolerance * scale
