"""Whether the teacher still tells images apart.

Self-distillation can collapse: student and teacher agree on an answer that does not depend on the image. The losses
do not show it; the figures here do. They are computed every few steps from what a step has at hand anyway, for the
images of all ranks together, and change nothing of the training.

dino_target_entropy
    Mean entropy of the teacher's targets, in nats. Falls to 0 or rises to log K in a collapse.
    Caron et al. 2021 (DINO), section 5.3 and figure 7.
dino_mean_target_entropy
    Entropy of the mean target. Above the former by what a target says about its image; equal to it where all images
    have the same target. log K minus this is the divergence of the mean target from uniform ones.
    Assran et al. 2022 (MSN), section 3, maximise it.
dino_prototypes_used
    Prototypes that are the largest of some target, as a share of as many as there could be. Close to 0 in a collapse.
ibot_target_entropy, ibot_mean_target_entropy, ibot_prototypes_used
    The same of the targets of masked patches.
cls_std
    Standard deviation over images of the teacher's class tokens, scaled to length 1: mean over dimensions, times
    sqrt(D). 0 in a collapse, 1 if they spread evenly; its square is about 1 minus the mean cosine of two images.
    Chen and He 2021 (SimSiam), section 4.1.
cls_rank
    Effective rank of these class tokens: the exponential of the entropy of their singular values. 1 in a collapse, at
    most the smaller of images and D. Garrido et al. 2023 (RankMe), equation 3.
student_teacher_cosine
    Mean cosine of the class tokens of student (masked crop) and teacher (whole crop).

A ViT-Ti on demo tiles, in batches of 32, had after 130 steps cls_std 0.79, cls_rank 10 and mean targets 0.37 nats above
targets; without centring, patch loss and KoLeo it collapsed to 0.03, 1.4 and 0.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.distributed import all_gather_rows, all_reduce_sum, get_global_size

from .outputs import Observation

logger = logging.getLogger("dinov2")

MOST_IMAGES = 512  # whose class tokens are compared: more take the singular value decomposition long
FEWEST_IMAGES = 8  # of all ranks: fewer may well be alike
EARLIEST_ALARM = 500  # iterations, where warm-up is shorter
PATIENCE = 5  # measurements in a row that have to say the same

# What a figure has to stay above, and what it means if it does not.
LIMITS = {
    "dino_mean_target_entropy - dino_target_entropy": (0.01, "the teacher's targets are the same for all images"),
    "ibot_mean_target_entropy - ibot_target_entropy": (0.01, "the teacher's targets are the same for all patches"),
    "cls_std": (0.1, "class tokens of different images are almost the same"),
    "cls_rank": (1.5, "class tokens of all images lie on a line"),
}


@torch.no_grad()
def collapse_indicators(observation: Observation) -> dict[str, float]:
    """The figures from what every rank has observed of a step; all of them call it."""
    figures = {f"dino_{name}": value for name, value in target_indicators(observation.cls_targets).items()}
    if observation.patch_targets is not None:
        figures.update({f"ibot_{name}": value for name, value in target_indicators(observation.patch_targets).items()})
    if observation.teacher_tokens is None:
        return {**figures, **token_indicators(observation.student_tokens)}
    figures.update(token_indicators(observation.teacher_tokens))
    cosine = F.cosine_similarity(observation.student_tokens, observation.teacher_tokens, dim=-1).mean()
    figures["student_teacher_cosine"] = float(all_reduce_sum(cosine)) / get_global_size()
    return figures


def target_indicators(targets: Tensor) -> dict[str, float]:
    """Entropies and use of prototypes of the targets (r, K) of all ranks; none where no rank has a row."""
    num_prototypes = targets.shape[1]
    used = targets.new_zeros(num_prototypes).index_fill_(0, targets.argmax(dim=1), 1.0)
    counts = torch.stack((torch.special.entr(targets).sum(), targets.new_full((), float(len(targets)))))
    total = all_reduce_sum(torch.cat((targets.sum(dim=0), used, counts)))  # (2K + 2,)
    mass, used, (entropy, rows) = total.split([num_prototypes, num_prototypes, 2])
    if not rows:
        return {}
    return {
        "target_entropy": float(entropy / rows),
        "mean_target_entropy": float(torch.special.entr(mass / rows).sum()),
        "prototypes_used": float(used.count_nonzero() / rows.clamp_max(num_prototypes)),
    }


def token_indicators(tokens: Tensor) -> dict[str, float]:
    """Spread and rank of class tokens (2B, D) of two crops of each image, over the first crops of all ranks.

    Returns:
        None for less than two images.
    """
    first = tokens[: min(len(tokens) // 2, max(MOST_IMAGES // get_global_size(), 1))]
    first = all_gather_rows(first)  # (R, D)
    if len(first) < 2:
        return {}
    spread = F.normalize(first, dim=1).std(dim=0, correction=0).mean() * first.shape[1] ** 0.5
    return {"cls_std": float(spread), "cls_rank": float(effective_rank(first))}


def effective_rank(rows: Tensor) -> Tensor:
    """Exponential of the entropy of the singular values of rows (R, D): () from 1 to min(R, D)."""
    singular = torch.linalg.svdvals(rows)  # (min(R, D),)
    return torch.special.entr(singular / singular.sum()).sum().exp()


@dataclass
class CollapseAlarm:
    """Warns, once each time, when a figure has been on the wrong side of its limit for a while.

    Untrained networks give all images the same answer too (a ViT-Ti: cls_std 0.0001, cls_rank 1.003), so nothing
    counts before learning has warmed up.
    """

    start: float  # the first iteration that counts
    low: dict[str, int] = field(default_factory=dict)  # measurements in a row, by figure

    @classmethod
    def after_warmup(cls, iterations: int, *, images: int) -> "CollapseAlarm":
        """The alarm of a run; it stays silent where batches are too small to tell.

        Args:
            iterations: of the warm-up.
            images: that all ranks together compute figures of.
        """
        return cls(max(iterations, EARLIEST_ALARM) if images >= FEWEST_IMAGES else math.inf)

    def look(self, figures: Mapping[str, float], iteration: int) -> None:
        """Take the figures of an iteration; those that were not computed say nothing."""
        if iteration < self.start:
            return
        for name, value in _watched(figures).items():
            limit, meaning = LIMITS[name]
            self.low[name] = self.low.get(name, 0) + 1 if value < limit else 0
            if self.low[name] == PATIENCE:
                logger.warning(
                    f"iteration {iteration}: the training may have collapsed: {meaning} ({name} = {value:.4f}, below "
                    f"{limit} for {PATIENCE} measurements). Look at the k-NN scores; if they fall too, start again "
                    "from an earlier checkpoint with a lower optim.base_lr, a longer warm-up, "
                    "train.centering=sinkhorn_knopp or a larger dino.koleo_loss_weight"
                )


def _watched(figures: Mapping[str, float]) -> dict[str, float]:
    """Those figures that have a limit."""
    watched = {name: figures[name] for name in LIMITS if name in figures}
    for kind in ("dino", "ibot"):
        of_mean, mean = f"{kind}_mean_target_entropy", f"{kind}_target_entropy"
        if mean in figures:
            watched[f"{of_mean} - {mean}"] = figures[of_mean] - figures[mean]
    return watched
