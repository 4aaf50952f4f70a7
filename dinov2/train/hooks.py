"""What happens between steps: teacher export, evaluation, checkpoints, stopping."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from dinov2.distributed import barrier, broadcast_object, is_main_process
from dinov2.logging import MetricSink
from dinov2.utils.atomic import atomic_path

from .checkpoint import Checkpointer
from .ssl_meta_arch import SSLMetaArch
from .state import TrainState
from .tuning import Tuner

logger = logging.getLogger("dinov2")


@dataclass(frozen=True)
class Hook:
    """An action every so many steps (0: never) and after the last one; it may ask to stop by returning True."""

    every: int
    action: Callable[[TrainState], bool | None]

    def is_due(self, state: TrainState, last: bool) -> bool:
        """Whether the action follows the step just taken."""
        return last or (self.every > 0 and state.iteration % self.every == 0)


def run_hooks(hooks: Sequence[Hook], state: TrainState, *, total: int) -> bool:
    """Run what is due after a step, in order; a request to stop makes this the last step for the others.

    Returns:
        Whether an action asked to stop.
    """
    stop = False
    for hook in hooks:
        if hook.is_due(state, last=stop or state.iteration >= total) and hook.action(state):
            stop = True
    return stop


def export_teacher(model: SSLMetaArch, folder: Path) -> Path:
    """Write {"teacher": state dict of backbone and heads} to folder/teacher_checkpoint.pth."""
    path = folder / "teacher_checkpoint.pth"
    if is_main_process():
        weights = {name: tensor.detach().cpu() for name, tensor in model.teacher.state_dict().items()}
        with atomic_path(path) as temporary:
            torch.save({"teacher": weights}, temporary)
        logger.info(f"teacher exported to {path}")
    barrier()
    return path


def export_hook(every: int, output_dir: Path) -> Hook:
    """Export to eval/training_{iteration}, the iteration counted from 0 as in DINOv2."""

    def action(state: TrainState) -> None:
        export_teacher(state.model, output_dir / "eval" / f"training_{state.iteration - 1}")

    return Hook(every, action)


def checkpoint_hook(every: int, checkpointer: Checkpointer) -> Hook:
    """Save the whole state."""
    return Hook(every, lambda state: checkpointer.save(state.state_dict(), state.iteration))


def tuning_hook(every: int, tuner: Tuner, sinks: Sequence[MetricSink]) -> Hook:
    """Evaluate, and ask to stop when the score has not improved for long enough."""

    def action(state: TrainState) -> bool:
        scores = tuner(state.model, state.iteration)
        for sink in sinks:
            # Under the last iteration done, as the report that follows: sinks want steps that do not go back.
            sink.log({f"tune/{name}": value for name, value in scores.items()}, max(state.iteration - 1, 0))
        # The scores of one rank, so that rounding on different machines cannot part the ranks.
        stopping = state.early_stopping
        if stopping.update(broadcast_object(scores), state.iteration):
            logger.info(f"stopping: {stopping.tracking} has not improved since iteration {stopping.best_iteration}")
        return stopping.stopped

    return Hook(every, action)
