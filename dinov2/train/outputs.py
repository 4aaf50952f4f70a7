"""What passes between the parts of a step. Shapes: B images, G global and L local crops of each, n masked
patches, D width, K prototypes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

MOST_ROWS = 256  # targets of a kind that an observation keeps; 64 MiB of 65,536 prototypes


class Targets(NamedTuple):
    """Teacher distributions: class tokens (G, B, K) of the *other* global crop, masked patches (n, K); and these
    class tokens (G, B, D) before the head, but none of a frozen teacher, which are no tokens of the student's kind."""

    cls: Tensor
    patches: Tensor | None
    tokens: Tensor | None


class Predictions(NamedTuple):
    """Student outputs: scores of local (L*B, K) and global (G*B, K) class tokens, of masked patches (n, K),
    and the global class tokens (G*B, D) before the head."""

    local_cls: Tensor | None
    global_cls: Tensor
    patches: Tensor | None
    global_tokens: Tensor


class Observation(NamedTuple):
    """What a step has seen of the networks' answers: targets (r, K) of at most `MOST_ROWS` class tokens and masked
    patches, and class tokens (G*B, D) of the teacher, if it has the student's kind, and of the student, crop by crop.
    float32, without graph, and copies, so that nothing else is kept in memory."""

    cls_targets: Tensor
    patch_targets: Tensor | None
    teacher_tokens: Tensor | None
    student_tokens: Tensor

    @classmethod
    def of(cls, targets: Targets, predictions: Predictions) -> "Observation":
        """Copy what is kept."""
        return cls(
            cls_targets=_some_rows(targets.cls.flatten(0, 1)),
            patch_targets=None if targets.patches is None else _some_rows(targets.patches),
            teacher_tokens=None if targets.tokens is None else targets.tokens.flip(0).flatten(0, 1).float(),
            student_tokens=predictions.global_tokens.detach().float().clone(),
        )


def _some_rows(rows: Tensor) -> Tensor:
    """A copy of rows (n, K) at equal distances, at most `MOST_ROWS` of them."""
    return rows[:: max(math.ceil(len(rows) / MOST_ROWS), 1)].detach().float().clone()


@dataclass(frozen=True)
class StepOutput(Mapping[str, Tensor]):
    """What a step returns: a mapping of DINOv2's loss names to () float32, and the optimised sum.

    As in DINOv2, koleo_loss carries its weight, and koleo_loss and ibot_loss are shown at half of what
    enters the objective.
    """

    losses: dict[str, Tensor]
    objective: Tensor
    observation: Observation | None = None  # where one was asked for

    @classmethod
    def mean(cls, outputs: Sequence["StepOutput"]) -> "StepOutput":
        """The mean of every figure over micro-batches."""
        losses = {name: torch.stack([output[name] for output in outputs]).mean() for name in outputs[0]}
        return cls(losses, torch.stack([output.objective for output in outputs]).mean())

    def figures(self) -> dict[str, Tensor]:
        """The losses under the names of the log, with their sum and the optimised sum."""
        total = torch.stack(list(self.values())).sum()
        return {"total_loss": total, **self, "loss_total_optimized": self.objective}

    def detach(self) -> "StepOutput":
        """The same figures without their graph."""
        losses = {name: loss.detach() for name, loss in self.items()}
        return replace(self, losses=losses, objective=self.objective.detach())

    def __getitem__(self, name: str) -> Tensor:
        return self.losses[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.losses)

    def __len__(self) -> int:
        return len(self.losses)


@dataclass(frozen=True)
class StepReport:
    """What a step leaves to be told."""

    figures: dict[str, float]  # all finite; their medians are logged
    latest: dict[str, float]  # likewise; logged as they are
    counts: dict[str, int]  # sums over ranks of what the caller has counted
