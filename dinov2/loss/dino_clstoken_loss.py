"""DINO: the student's class token predicts the teacher's prototype distribution of another crop.

Source: Caron et al. 2021 (DINO), eq. 1 to 3; DINOv2 section 4.
Differs from the reference: the log-softmax is float32 whatever the scores' dtype (float16 rounds
log-probabilities near -11 to 0.008); teacher crops are summed first, since every student crop is
compared with all of them.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.distributed import all_reduce_sum, get_global_size

from .center import CenteredLoss
from .sinkhorn import sinkhorn_knopp


class DINOLoss(CenteredLoss):
    """Cross-entropy between student crops and teacher crops, summed over all their pairs."""

    def __init__(self, out_dim: int, student_temp: float = 0.1, center_momentum: float = 0.9) -> None:
        super().__init__((1, out_dim), student_temp, center_momentum)

    def forward(
        self,
        student_output_list: Iterable[Tensor],
        teacher_out_softmaxed_centered_list: Iterable[Tensor],
    ) -> Tensor:
        """Sum over (student crop, teacher crop) pairs of the mean cross-entropy.

        Args:
            student_output_list: scores (B, K) of each student crop.
            teacher_out_softmaxed_centered_list: targets (B, K) of each teacher crop; a (T, B, K)
                tensor will do.
        Returns:
            () float32.
        """
        targets = torch.stack(list(teacher_out_softmaxed_centered_list)).sum(dim=0)  # (B, K)
        losses = [
            -(targets * F.log_softmax(scores.float() / self.student_temp, dim=-1)).sum(dim=-1).mean()
            for scores in student_output_list
        ]
        return torch.stack(losses).sum()

    @torch.no_grad()
    def softmax_center_teacher(self, teacher_output: Tensor, teacher_temp: float) -> Tensor:
        """Centred targets (B, K) float32 from teacher scores (B, K)."""
        return self._centered_softmax(teacher_output, teacher_temp)

    def sinkhorn_knopp_teacher(self, teacher_output: Tensor, teacher_temp: float, n_iterations: int = 3) -> Tensor:
        """Balanced targets (B, K) float32 from teacher scores (B, K)."""
        num_rows = teacher_output.shape[0] * get_global_size()
        return sinkhorn_knopp(teacher_output, temp=teacher_temp, num_rows=num_rows, n_iterations=n_iterations)

    @torch.no_grad()
    def update_center(self, teacher_output: Tensor) -> None:
        """Move the centre towards the mean of teacher scores (B, K) over the rows of all ranks."""
        total = all_reduce_sum(teacher_output.float().sum(dim=0, keepdim=True))  # (1, K)
        self._move_center(total / (teacher_output.shape[0] * get_global_size()))
