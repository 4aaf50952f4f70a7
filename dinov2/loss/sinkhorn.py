"""Sinkhorn-Knopp: teacher targets in which every prototype gets the same share of the batch.

Source: Caron et al. 2020 (SwAV), section 3.1; Cuturi 2013.
Differs from the reference: the largest score of all ranks is subtracted before the exponential, which
changes nothing in exact arithmetic and keeps scores above 88 * temperature finite; a prototype whose
mass underflows to zero stays at zero instead of turning the batch into NaN.
"""

import torch
from torch import Tensor

from dinov2.distributed import all_reduce_max, all_reduce_sum


@torch.no_grad()
def sinkhorn_knopp(scores: Tensor, *, temp: float, num_rows: Tensor | float, n_iterations: int = 3) -> Tensor:
    """Balanced assignment of the rows of all ranks to prototypes.

    Args:
        scores: (B, K) teacher scores of this rank, any float dtype.
        temp: temperature that divides the scores.
        num_rows: rows of all ranks together.
    Returns:
        (B, K) float32, every row summing to 1.
    """
    scores = scores.float() / temp
    tiny = torch.finfo(torch.float32).tiny
    peak = all_reduce_max(scores.max()) if scores.numel() else all_reduce_max(scores.new_tensor(-torch.inf))
    plan = torch.exp(scores - peak)  # (B, K)
    plan /= all_reduce_sum(plan.sum())
    num_prototypes = plan.shape[1]
    for _ in range(n_iterations):
        plan /= (all_reduce_sum(plan.sum(dim=0)) * num_prototypes).clamp_min(tiny)  # (K,)
        plan /= (plan.sum(dim=1, keepdim=True) * num_rows).clamp_min(tiny)  # (B, 1)
    return plan * num_rows
