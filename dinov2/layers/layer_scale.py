"""A learned factor per channel on a residual branch.

Source: Touvron et al. 2021, "Going deeper with image transformers", section 2.
"""

import torch
from torch import Tensor, nn


class LayerScale(nn.Module):
    """y = x * gamma, gamma starting at `init_values`."""

    def __init__(
        self,
        dim: int,
        init_values: float = 1e-5,
        inplace: bool = False,
        device: torch.device | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.inplace = inplace
        self.init_values = init_values
        self.gamma = nn.Parameter(torch.empty(dim, device=device, dtype=dtype))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill gamma with its initial value."""
        nn.init.constant_(self.gamma, self.init_values)

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns (..., D)."""
        return x.mul_(self.gamma) if self.inplace else x * self.gamma
