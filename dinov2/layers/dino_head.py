"""The projection head: token -> scores over prototypes.

Source: Caron et al. 2021 (DINO), appendix C; DINOv2 trains the magnitudes of the prototypes too.
Differs from the reference: the weight normalisation is written out, so that its parameters keep the
names `weight_g` and `weight_v` of the published files on every version of torch.
"""

import math
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WeightNormLinear(nn.Module):
    """Linear layer without bias whose rows are `weight_g * weight_v / |weight_v|` (Salimans & Kingma 2016)."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        bound = 1.0 / math.sqrt(in_features)
        self.weight_g = nn.Parameter(torch.ones(out_features, 1))
        self.weight_v = nn.Parameter(torch.empty(out_features, in_features).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        """(..., in_features) -> (..., out_features)."""
        norms = self.weight_v.norm(dim=1, keepdim=True)  # (out, 1)
        return F.linear(x, self.weight_v * (self.weight_g / norms))


class DINOHead(nn.Module):
    """MLP to a bottleneck, unit length, weight-normalised layer to K prototypes."""

    def __init__(
        self,
        in_dim: int,
        out_dim: int,
        use_bn: bool = False,
        nlayers: int = 3,
        hidden_dim: int = 2048,
        bottleneck_dim: int = 256,
        mlp_bias: bool = True,
    ) -> None:
        super().__init__()
        self.mlp = _build_mlp(max(nlayers, 1), in_dim, hidden_dim, bottleneck_dim, use_bn, mlp_bias)
        self.mlp.apply(_init_linear)
        self.last_layer = WeightNormLinear(bottleneck_dim, out_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_dim) -> scores (B, K)."""
        x = self.mlp(x)  # (B, bottleneck)
        eps = 1e-6 if x.dtype == torch.float16 else 1e-12
        return self.last_layer(F.normalize(x, dim=-1, eps=eps))


def _build_mlp(nlayers: int, in_dim: int, hidden_dim: int, bottleneck_dim: int, use_bn: bool, bias: bool) -> nn.Module:
    if nlayers == 1:
        return nn.Linear(in_dim, bottleneck_dim, bias=bias)
    widths = [in_dim] + [hidden_dim] * (nlayers - 1)
    layers: list[nn.Module] = []
    for width_in, width_out in pairwise(widths):
        layers.append(nn.Linear(width_in, width_out, bias=bias))
        if use_bn:
            layers.append(nn.BatchNorm1d(width_out))
        layers.append(nn.GELU())
    return nn.Sequential(*layers, nn.Linear(hidden_dim, bottleneck_dim, bias=bias))


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
