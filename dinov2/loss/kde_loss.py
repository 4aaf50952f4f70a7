"""KDE: spreads the class tokens of one crop over the sphere by the density that they make together.

Source: Wang & Isola 2020, "Understanding contrastive representation learning through alignment and uniformity",
section 4.2, with a von Mises-Fisher kernel as Zimmermann et al. 2024, "Virchow2", use it in place of KoLeo.
Unlike KoLeo, which looks at one neighbour, its gradient is bounded and smooth where tokens come together.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class KDELoss(nn.Module):
    """Mean log density at every token that the other tokens make on the unit sphere."""

    def __init__(self, concentration: float = 5.0) -> None:
        """Choose the kernel exp(concentration * cosine).

        Args:
            concentration: of the von Mises-Fisher kernel; larger ones look at nearer neighbours.
        """
        super().__init__()
        self.concentration = concentration

    def forward(self, student_output: Tensor, eps: float = 1e-8) -> Tensor:
        """(B, D) tokens of any float dtype -> () float32, up to a constant of the kernel; 0 where B < 2."""
        count = student_output.shape[0]
        if count < 2:
            return student_output.float().sum() * 0.0
        with torch.autocast(student_output.device.type, enabled=False):
            tokens = F.normalize(student_output.float(), dim=-1, eps=eps)  # (B, D)
            exponents = self.concentration * tokens @ tokens.T  # (B, B)
            itself = torch.eye(count, dtype=torch.bool, device=tokens.device)
            densities = exponents.masked_fill(itself, -torch.inf).logsumexp(dim=1) - math.log(count - 1)  # (B,)
            return densities.mean()
