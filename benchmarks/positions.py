"""Resizing position embeddings forward and backward: torch's bicubic interpolation, and our two matrices.

python benchmarks/positions.py
"""

import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.models.position import resize_position_grid

CASES = ((16, 7, 1024), (37, 16, 1024), (37, 7, 384))  # stored side, wanted side, width


def interpolate(grid: Tensor, side: int) -> Tensor:
    """DINOv2's way: (M, M, D) -> (side, side, D)."""
    scale = (side + 0.1) / grid.shape[0]
    resized = F.interpolate(grid.permute(2, 0, 1)[None], scale_factor=(scale, scale), mode="bicubic")
    return resized[0].permute(1, 2, 0)


def with_matrices(grid: Tensor, side: int) -> Tensor:
    """Our way: (M, M, D) -> (side, side, D)."""
    return resize_position_grid(grid, (side, side))


def seconds(resize: Callable[[Tensor, int], Tensor], grid: Tensor, side: int, repeats: int = 100) -> float:
    """Mean time of a forward and a backward pass."""
    for _ in range(3):
        resize(grid, side).sum().backward()
    started = time.perf_counter()
    for _ in range(repeats):
        resize(grid, side).sum().backward()
    return (time.perf_counter() - started) / repeats


def main() -> None:
    """Print the times and the ratio of every case."""
    for stored, side, width in CASES:
        grid = torch.randn(stored, stored, width, requires_grad=True)
        theirs, ours = seconds(interpolate, grid, side), seconds(with_matrices, grid, side)
        print(
            f"{stored}x{stored} -> {side}x{side}, width {width}: "
            f"torch {1e3 * theirs:.2f} ms, ours {1e3 * ours:.2f} ms, ratio {theirs / ours:.1f}"
        )


if __name__ == "__main__":
    main()
