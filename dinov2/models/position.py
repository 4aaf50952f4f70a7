"""Resizing a learned grid of position embeddings to another image size.

Source: DINOv2's bicubic interpolation, both of its modes (by offset scale, and by size).
Differs from the reference: bicubic resampling is linear and separable, so it is applied as two small
fixed matrices, rows (h, M) and columns (w, M). The values agree to float32 rounding; the backward pass
is two matrix products, deterministic on a GPU where torch's bicubic backward is not.
"""

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor


def resize_position_grid(
    grid: Tensor, size: tuple[int, int], *, antialias: bool = False, offset: float = 0.1
) -> Tensor:
    """Resample a square grid of embeddings.

    Args:
        grid: (M, M, D).
        size: rows and columns wanted, (h, w).
        antialias: low-pass filter when shrinking.
        offset: added to the wanted size in the scale factor; 0 resizes by size. The published models
            without registers use 0.1, those with registers 0.
    Returns:
        (h, w, D) float32.
    """
    # int: where a tracer (FLOP count, export) is at work, sizes are tensors.
    stored = int(grid.shape[0])
    rows, columns = (resampling_matrix(stored, int(n), antialias, offset, grid.device) for n in size)
    return torch.einsum("hi,ijd,wj->hwd", rows, grid.float(), columns)


@lru_cache(maxsize=128)
@torch.inference_mode(False)  # a matrix first needed in an evaluation serves training too
@torch.no_grad()
def resampling_matrix(stored: int, wanted: int, antialias: bool, offset: float, device: torch.device) -> Tensor:
    """Weights (wanted, stored) float32 of bicubic resampling along one axis."""
    # One channel per stored position, each with a one in its own row: what comes out is its column.
    # Two equal columns, since torch 2.11's antialiased kernel misreads images of width 1.
    basis = torch.eye(stored).view(1, stored, stored, 1).repeat(1, 1, 1, 2)
    if offset:
        scale = (float(wanted + offset) / stored, 1.0)
        resampled = F.interpolate(basis, scale_factor=scale, mode="bicubic", antialias=antialias)
    else:
        resampled = F.interpolate(basis, size=(wanted, 2), mode="bicubic", antialias=antialias)
    if resampled.shape[2] != wanted:
        raise ValueError(f"resizing {stored} positions to {wanted} with offset {offset} gives {resampled.shape[2]}")
    return resampled[0, :, :, 0].T.contiguous().to(device)
