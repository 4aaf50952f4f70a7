"""Training linear heads with scores and checkpoints in between."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dinov2.distributed.outcomes import on_main
from dinov2.errors import UserError
from dinov2.utils.atomic import atomic_path
from dinov2.utils.progress import Progress

from .choices import LINEAR_RESULTS
from .features import Features
from .linear_heads import LinearTraining, best_head
from .linear_model import HeldOutScore
from .results import append_lines

logger = logging.getLogger("dinov2")

# DINOv2's names.
RUNNING, FINAL = "running_checkpoint_linear_eval.pth", "model_final.pth"


@dataclass(frozen=True)
class LinearPlan:
    """When heads are scored and saved.

    Attributes:
        total: steps in all.
        score_every, save_every: steps; 0: only at the end.
        average: "micro", or "macro" for the mean accuracy of the classes.
    """

    total: int
    score_every: int
    save_every: int
    average: str = "micro"

    def next_stop(self, step: int) -> int:
        """The step before which there is something to do besides training, after `step` steps."""
        stops = [(step // every + 1) * every for every in (self.score_every, self.save_every) if every]
        return min([*stops, self.total])

    def is_due(self, every: int, step: int) -> bool:
        """Whether something is done after `step` steps."""
        return step >= self.total or (every > 0 and step % every == 0)


def train_and_score(
    training: LinearTraining,
    batches: Callable[[range], Iterable[Features]],
    val: Features,
    *,
    plan: LinearPlan,
    folder: Path,
) -> dict[str, HeldOutScore]:
    """Train to the end of the plan.

    Args:
        batches: those of some steps.
        val: what heads are scored on.
        folder: gets checkpoints and the lines of DINOv2's results file.
    Returns:
        The score of every head.
    """
    size = training.batch_size
    with Progress("training of linear heads", (plan.total - training.iteration) * size) as progress:
        while training.iteration < plan.total:
            steps = range(training.iteration, plan.next_stop(training.iteration))
            training.run(batches(steps), after=lambda: progress.add(size))
            step = training.iteration
            if plan.is_due(plan.save_every, step):
                save_heads(training, folder / (FINAL if step == plan.total else RUNNING))
            if plan.is_due(plan.score_every, step) and step < plan.total:
                _write_line(folder, step, training.heads.scores(val, average=plan.average))
    scores = training.heads.scores(val, average=plan.average)
    _write_line(folder, plan.total, scores)
    return scores


def save_heads(training: LinearTraining, path: Path) -> None:
    """Write the state of a training; all ranks call it."""

    def save() -> None:
        with atomic_path(path) as temporary:
            torch.save(training.state_dict(), temporary)

    on_main(save)


def resume(training: LinearTraining, folder: Path | None, *, classifiers: str | None, device: torch.device) -> None:
    """Take the state that was saved in a folder; else heads from a file, if one is named.

    Args:
        folder: of an earlier run; None to start over.
        classifiers: a file that this or DINOv2's linear evaluation has made.
    Raises:
        UserError: if it cannot be read, or has other heads.
    """
    saved = folder and next((folder / name for name in (FINAL, RUNNING) if (folder / name).is_file()), None)
    if saved is not None:
        _load(saved, training.load_state_dict, device)
    elif classifiers is not None:
        _load(Path(classifiers), training.load_heads, device)
    if training.iteration:
        logger.info(f"going on after {training.iteration:,} steps of {saved or classifiers}")


def _load(path: Path, take: Callable[[Any], None], device: torch.device) -> None:
    try:
        take(torch.load(path, map_location=device, weights_only=True))
    except Exception as error:
        raise UserError(
            f"{path} does not have the heads of this evaluation: {error!s:.300}. Blocks, learning rates, batch size, "
            "number of processes and classes have to be those that it was made with; --no-resume starts over"
        ) from error


def _write_line(folder: Path, step: int, scores: Mapping[str, HeldOutScore]) -> None:
    """Log the best head, and add it to the results file as DINOv2 does."""
    best = best_head(scores)
    logger.info(f"after {step:,} steps the best head on the val set is {best}: {100 * scores[best].value:.1f} %")
    content = {"best_classifier": {"name": best, "accuracy": scores[best].value}}
    append_lines(folder / LINEAR_RESULTS, [f"iter: {step - 1}", json.dumps(content), ""])
