"""A gated feed-forward network (Shazeer 2020, "GLU variants improve transformer").

Differs from the reference: the "fused" variant is written in torch and needs no xFormers; it keeps
the fused variant's smaller hidden width and its parameter names.
"""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn


class SwiGLUFFN(nn.Module):
    """w3(silu(first half of w12(x)) * second half)."""

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[..., nn.Module] | None = None,
        drop: float = 0.0,
        bias: bool = True,
    ) -> None:
        """`act_layer` and `drop` are there to be interchangeable with `Mlp`: the gate is always SiLU."""
        super().__init__()
        hidden_features = hidden_features or in_features
        self.w12 = nn.Linear(in_features, 2 * hidden_features, bias=bias)
        self.w3 = nn.Linear(hidden_features, out_features or in_features, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        gate, value = self.w12(x).chunk(2, dim=-1)  # (..., hidden) each
        return self.w3(F.silu(gate) * value)


class SwiGLUFFNFused(SwiGLUFFN):
    """SwiGLU whose hidden width is two thirds of the given one, rounded up to a multiple of 8.

    With that width a block has about as many parameters as one with an `Mlp`.
    """

    def __init__(
        self,
        in_features: int,
        hidden_features: int | None = None,
        out_features: int | None = None,
        act_layer: Callable[..., nn.Module] | None = None,
        drop: float = 0.0,
        bias: bool = True,
    ) -> None:
        hidden_features = (int((hidden_features or in_features) * 2 / 3) + 7) // 8 * 8
        super().__init__(in_features, hidden_features, out_features, bias=bias)
