"""Positions of another image size, made to fit."""

import math

import torch
from torch import Tensor

from dinov2.errors import UserError

from ..position import resize_position_grid

POSITIONS = ("interpolate", "center_cut")


def fit_positions(
    positions: Tensor, count: int, how: str = "interpolate", *, antialias: bool = False, offset: float = 0.0
) -> Tensor:
    """Positions (1, 1 + M*M, D) for a grid of `count` patches; the row of the class token stays as it is.

    Args:
        how: "interpolate" resamples the grid, bicubically; "center_cut" takes the middle of it, which keeps the
            distance between neighbours: of 37 x 37 positions, rows and columns 10 to 25 for 16 x 16.
        antialias, offset: see `resize_position_grid`. With those of the model, a model for small images gets the
            positions that the model of the file gives such images.
    Returns:
        (1, 1 + count, D).
    Raises:
        UserError: for grids that are not square, or a cut that is larger than what is there.
    """
    stored = positions.shape[1] - 1
    if stored == count:
        return positions
    side, wanted = math.isqrt(stored), math.isqrt(count)
    if side**2 != stored or wanted**2 != count:
        raise UserError(f"{stored} positions cannot become {count}: only square grids can be resized")
    grid = positions[0, 1:].unflatten(0, (side, side))  # (M, M, D)
    if how == "center_cut":
        fitted = _center_cut(grid, wanted)
    else:
        fitted = resize_position_grid(grid, (wanted, wanted), antialias=antialias, offset=offset)
    rows = fitted.flatten(0, 1)[None].to(positions.dtype)  # (1, count, D)
    return torch.cat((positions[:, :1], rows), dim=1)


def _center_cut(grid: Tensor, wanted: int) -> Tensor:
    """The middle (wanted, wanted, D) of a grid (M, M, D)."""
    side = len(grid)
    if wanted > side:
        raise UserError(f"a grid of {wanted}x{wanted} positions cannot be cut out of one of {side}x{side}; interpolate")
    first = side // 2 - wanted // 2  # 37 -> 16: 18 - 8 = 10, as in Roth et al.
    return grid[first : first + wanted, first : first + wanted]
