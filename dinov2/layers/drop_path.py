"""Stochastic depth: skip a residual branch for some images while training.

Source: Huang et al. 2016, "Deep networks with stochastic depth". Two variants, both DINOv2's:
`DropPath` zeroes the branch of dropped images, `residual_on_subset` does not even compute it.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class DropPath(nn.Module):
    """Zero the branch of each image with probability `drop_prob`, scale the others to keep the mean."""

    def __init__(self, drop_prob: float = 0.0) -> None:
        super().__init__()
        self.drop_prob = drop_prob

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns (B, ...)."""
        if self.drop_prob == 0.0 or not self.training:
            return x
        keep = 1.0 - self.drop_prob
        mask = x.new_empty((x.shape[0],) + (1,) * (x.ndim - 1)).bernoulli_(keep)  # (B, 1, ...)
        return x * (mask / keep)


def pack(groups: Sequence[Tensor]) -> tuple[Tensor, list[tuple[int, int]]]:
    """Lay the tokens of groups (B_i, N_i, D) one after the other: (sum B_i * N_i, D), [(B_i, N_i)]."""
    shapes = [(group.shape[0], group.shape[1]) for group in groups]
    return torch.cat([group.reshape(-1, group.shape[-1]) for group in groups]), shapes


def unpack(tokens: Tensor, shapes: Sequence[tuple[int, int]]) -> list[Tensor]:
    """Undo `pack`: (sum B_i * N_i, D) -> groups (B_i, N_i, D)."""
    parts = tokens.split([batch * length for batch, length in shapes])
    return [part.view(batch, length, -1) for part, (batch, length) in zip(parts, shapes)]


def residual_on_subset(
    groups: Sequence[Tensor],
    branch: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor],
    drop_ratio: float,
) -> list[Tensor]:
    """Add a residual branch to a random subset of the images of every group.

    `max(int(B * (1 - drop_ratio)), 1)` images of a group are drawn; their branch is scaled by B over
    that number, so that the sum over images keeps its expectation.

    Args:
        groups: tensors (B_i, N_i, D).
        branch: maps packed tokens (T, D) and the shapes of the groups to (T, D).
    Returns:
        New tensors of the shapes of `groups`.
    """
    chosen = [_draw_rows(group, drop_ratio) for group in groups]
    subsets = [group.index_select(0, rows) for group, rows in zip(groups, chosen)]
    residuals = unpack(*_apply(branch, subsets))
    return [
        group.index_add(0, rows, residual.to(group.dtype), alpha=group.shape[0] / rows.shape[0])
        for group, rows, residual in zip(groups, chosen, residuals)
    ]


def residual_on_all(
    groups: Sequence[Tensor], branch: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor]
) -> list[Tensor]:
    """Add a residual branch to every image of every group (B_i, N_i, D)."""
    residuals = unpack(*_apply(branch, groups))
    return [group + residual for group, residual in zip(groups, residuals)]


def _draw_rows(group: Tensor, drop_ratio: float) -> Tensor:
    """Indices (kept,) of the images of a (B, N, D) group whose branch is computed."""
    kept = max(int(group.shape[0] * (1 - drop_ratio)), 1)
    return torch.randperm(group.shape[0], device=group.device)[:kept]


def _apply(
    branch: Callable[[Tensor, Sequence[tuple[int, int]]], Tensor], groups: Sequence[Tensor]
) -> tuple[Tensor, list[tuple[int, int]]]:
    tokens, shapes = pack(groups)
    return branch(tokens, shapes), shapes
