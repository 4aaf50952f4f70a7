"""iBOT: the student predicts the teacher's distribution of the patches that were hidden from it.

Source: Zhou et al. 2022 (iBOT), eq. 2; DINOv2 section 4.
Differs from the reference: float32 throughout; no process group is needed for one process; the count
of masked patches is not changed in place.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.distributed import all_reduce_sum

from .center import CenteredLoss
from .sinkhorn import sinkhorn_knopp


class iBOTPatchLoss(CenteredLoss):  # noqa: N801 (DINOv2's public name)
    """Cross-entropy on masked patches, averaged within each crop, then over all crops."""

    def __init__(self, patch_out_dim: int, student_temp: float = 0.1, center_momentum: float = 0.9) -> None:
        super().__init__((1, 1, patch_out_dim), student_temp, center_momentum)

    def forward(self, student_patch_tokens: Tensor, teacher_patch_tokens: Tensor, student_masks_flat: Tensor) -> Tensor:
        """Loss of dense scores and targets (B, N, K) where masks (B, N) are True: () float32."""
        entropy = self._cross_entropy(student_patch_tokens, teacher_patch_tokens)  # (B, N)
        masks = student_masks_flat.float()
        return ((entropy * masks).sum(dim=-1) / masks.sum(dim=-1).clamp_min(1.0)).mean()

    def forward_masked(
        self,
        student_patch_tokens_masked: Tensor,
        teacher_patch_tokens_masked: Tensor,
        student_masks_flat: Tensor,
        n_masked_patches: int | None = None,
        masks_weight: Tensor | None = None,
    ) -> Tensor:
        """Loss of the n masked patches of G*B crops.

        Args:
            student_patch_tokens_masked: scores (n or more, K), crop by crop.
            teacher_patch_tokens_masked: targets (n or more, K).
            student_masks_flat: (G*B, N) bool.
            n_masked_patches: n where the scores carry padding rows after it.
            masks_weight: (n,) weight of each patch; by default 1 / masked patches of its crop.
        Returns:
            () float32; each masked crop counts once, and crops without mask count as zero.
        """
        entropy = self._cross_entropy(student_patch_tokens_masked, teacher_patch_tokens_masked)  # (n,)
        if masks_weight is None:
            masks_weight = patch_weights(student_masks_flat)
        if n_masked_patches is not None:
            entropy = entropy[:n_masked_patches]
        return (entropy * masks_weight).sum() / student_masks_flat.shape[0]

    @torch.no_grad()
    def softmax_center_teacher(self, teacher_patch_tokens: Tensor, teacher_temp: float) -> Tensor:
        """Centred targets (1, n, K) float32 from teacher scores (1, n, K)."""
        return self._centered_softmax(teacher_patch_tokens, teacher_temp)

    def sinkhorn_knopp_teacher(
        self,
        teacher_output: Tensor,
        teacher_temp: float,
        n_masked_patches_tensor: Tensor,
        n_iterations: int = 3,
    ) -> Tensor:
        """Balanced targets (n, K) float32 from teacher scores (n, K); the count (1,) may differ by rank."""
        num_rows = all_reduce_sum(n_masked_patches_tensor.clone())  # (1,)
        return sinkhorn_knopp(teacher_output, temp=teacher_temp, num_rows=num_rows, n_iterations=n_iterations)

    @torch.no_grad()
    def update_center(self, teacher_patch_tokens: Tensor) -> None:
        """Move the centre towards the mean over ranks of each rank's mean of scores (1, n, K).

        Ranks without masked patches have no say; if no rank has any, the centre stays.
        """
        rows = teacher_patch_tokens.float().flatten(0, 1)  # (n, K)
        mean = rows.sum(dim=0) / max(len(rows), 1)  # (K,)
        voices = all_reduce_sum(torch.cat((mean, mean.new_tensor([float(len(rows) > 0)]))))  # (K + 1,)
        total, num_voices = voices[:-1], voices[-1]
        center = torch.where(num_voices > 0, total / num_voices.clamp_min(1), self.center.flatten())  # (K,)
        self._move_center(center.view_as(self.center))

    def _cross_entropy(self, scores: Tensor, targets: Tensor) -> Tensor:
        """(..., K), (..., K) -> (...) float32."""
        return -(targets * F.log_softmax(scores.float() / self.student_temp, dim=-1)).sum(dim=-1)


def patch_weights(masks: Tensor) -> Tensor:
    """1 / masked patches of its crop, for each masked patch of masks (B, N): (n,) float32."""
    counts = masks.sum(dim=-1, keepdim=True).clamp_min(1)  # (B, 1)
    return (1.0 / counts).expand_as(masks)[masks].float()
