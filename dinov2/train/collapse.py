"""Whether the teacher still tells images apart.

Self-distillation can collapse: student and teacher agree on an answer that does not depend on the image. The losses
do not show it, since they are low or at their usual value then. These figures do. They are computed every few steps
from what the step has computed anyway, of all ranks together, and change nothing.

| figure | what it is | collapsed | source |
|---|---|---|---|
| `dino_target_entropy` | mean entropy of the teacher's targets, nats | 0 or log K | Caron et al. 2021 (DINO), section 5.3 |
| `dino_mean_target_entropy` | entropy of the mean target, nats; log K minus it is the divergence from uniform targets | close to the former | Assran et al. 2022 (MSN), eq. 2 |
| `dino_prototypes_used` | prototypes that are some target's largest, as a share of the most that there could be | close to 0 | Caron et al. 2020 (SwAV) |
| `ibot_...` | the same of the targets of masked patches | | Zhou et al. 2022 (iBOT) |
| `cls_std` | standard deviation over images of class tokens of length 1, mean over dimensions times sqrt(D): 1 if spread evenly | 0 | Chen and He 2021 (SimSiam), section 4.1 |
| `cls_rank` | effective rank of class tokens, between 1 and the smaller of images and D | 1 | Garrido et al. 2023 (RankMe), eq. 3 |
| `student_teacher_cosine` | cosine between the class tokens of student (masked crop) and teacher (whole crop) | | |
"""

import logging

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.distributed import all_gather_rows, all_reduce_sum, get_global_size

from .outputs import Snapshot

logger = logging.getLogger("dinov2")

MOST_IMAGES = 512  # whose class tokens are compared; a singular value decomposition of more would take long


@torch.no_grad()
def collapse_indicators(snapshot: Snapshot) -> dict[str, float]:
    """The figures above from what every rank has seen of a step; all of them call it."""
    figures = {f"dino_{name}": value for name, value in target_indicators(snapshot.cls_targets).items()}
    if snapshot.patch_targets is not None:
        figures.update({f"ibot_{name}": value for name, value in target_indicators(snapshot.patch_targets).items()})
    figures.update(token_indicators(snapshot.teacher_tokens))
    cosine = F.cosine_similarity(snapshot.student_tokens, snapshot.teacher_tokens, dim=-1).mean()
    figures["student_teacher_cosine"] = float(all_reduce_sum(cosine)) / get_global_size()
    return figures


def target_indicators(targets: Tensor) -> dict[str, float]:
    """Entropies and use of prototypes of targets (r, K) of this rank and of those of the others; none without rows."""
    num_prototypes = targets.shape[1]
    used = targets.new_zeros(num_prototypes).index_fill_(0, targets.argmax(dim=1), 1.0)
    counts = torch.stack((torch.special.entr(targets).sum(), targets.new_tensor(float(len(targets)))))
    total = all_reduce_sum(torch.cat((targets.sum(dim=0), used, counts)))  # (2K + 2,)
    mean, used, (entropy, rows) = total.split([num_prototypes, num_prototypes, 2])
    if not rows:
        return {}
    return {
        "target_entropy": float(entropy / rows),
        "mean_target_entropy": float(torch.special.entr(mean / rows).sum()),
        "prototypes_used": float(used.count_nonzero() / rows.clamp_max(num_prototypes)),
    }


def token_indicators(tokens: Tensor) -> dict[str, float]:
    """Spread and rank of class tokens (B, D) of this rank and of those of the others; none of a single image."""
    tokens = all_gather_rows(tokens[: max(MOST_IMAGES // get_global_size(), 1)])  # (R, D)
    if len(tokens) < 2:
        return {}
    spread = F.normalize(tokens, dim=1).std(dim=0, correction=0).mean() * tokens.shape[1] ** 0.5
    return {"cls_std": float(spread), "cls_rank": float(effective_rank(tokens))}


def effective_rank(rows: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values of rows (R, D): () from 1 to min(R, D)."""
    singular = torch.linalg.svdvals(rows)  # (min(R, D),)
    return torch.special.entr(singular / singular.sum()).sum().exp()
