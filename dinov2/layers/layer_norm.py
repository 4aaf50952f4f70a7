"""Layer norm in float32 (Ba et al. 2016), with weights that may have been rounded on the way.

A sharded block gathers its weights in the dtype that it computes in. Autocast turns them back to float32 for
a layer norm on a GPU, but not on a CPU, whose kernel refuses them.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class LayerNorm(nn.LayerNorm):
    """Normalises the last dimension in float32; the result has the dtype of the input."""

    def forward(self, x: Tensor) -> Tensor:
        """Takes and returns (..., D)."""
        weight, bias = self.weight.float(), self.bias.float()  # (D,) each
        return F.layer_norm(x.float(), self.normalized_shape, weight, bias, self.eps).to(x.dtype)
