"""KoLeo: spreads the class tokens of one crop over the sphere.

Source: Sablayrolles et al. 2019, "Spreading vectors for similarity search", eq. 4; DINOv2 section 4.
Differs from the reference: float32 throughout, since in half precision two equal tokens give
infinity; a batch of one token has no neighbour and costs nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KoLeoLoss(nn.Module):
    """Mean negative log distance of every token to its nearest neighbour on the unit sphere."""

    def forward(self, student_output: Tensor, eps: float = 1e-8) -> Tensor:
        """(B, D) tokens of any float dtype -> () float32; 0 where B < 2."""
        if student_output.shape[0] < 2:
            return student_output.float().sum() * 0.0
        with torch.autocast(student_output.device.type, enabled=False):
            tokens = F.normalize(student_output.float(), dim=-1, eps=eps)  # (B, D)
            neighbours = tokens[_nearest(tokens.detach())]  # (B, D)
            distances = F.pairwise_distance(tokens, neighbours, eps=eps)  # (B,)
            return -torch.log(distances + eps).mean()


def _nearest(tokens: Tensor) -> Tensor:
    """Index (B,) of the nearest other token of unit tokens (B, D)."""
    similarity = tokens @ tokens.T  # (B, B)
    return similarity.fill_diagonal_(-1).argmax(dim=1)
