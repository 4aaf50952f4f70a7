"""The running mean of teacher scores that centering subtracts.

Source: Caron et al. 2021 (DINO), section 3.1.
Differs from the reference: a batch enters the centre at once instead of just before the next use.
The targets are the same, since they are always computed before the update, and no pending update
can be lost between two runs.
"""

import torch
from torch import Tensor, nn


class CenteredLoss(nn.Module):
    """A loss whose targets are softmax((scores - center) / temperature)."""

    center: Tensor

    def __init__(self, center_shape: tuple[int, ...], student_temp: float, center_momentum: float) -> None:
        super().__init__()
        self.student_temp = student_temp
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(center_shape))

    def _centered_softmax(self, scores: Tensor, temp: float) -> Tensor:
        """Targets (..., K) in float32 from teacher scores (..., K)."""
        return torch.softmax((scores.float() - self.center) / temp, dim=-1)

    @torch.no_grad()
    def _move_center(self, batch_mean: Tensor) -> None:
        """Step the running mean towards `batch_mean`, of the centre's shape."""
        self.center.lerp_(batch_mean.to(self.center.dtype), 1 - self.center_momentum)
