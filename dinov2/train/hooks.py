"""What happens between steps: teacher export, evaluation, checkpoints, stopping."""

import logging
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from dinov2.distributed import broadcast_object
from dinov2.distributed.outcomes import SharedError, on_main
from dinov2.logging import MetricSink
from dinov2.utils.atomic import atomic_path

from .checkpoint import Checkpointer, SaveError
from .preemption import StopRequested
from .ssl_meta_arch import SSLMetaArch
from .state import TrainState
from .supervision import Supervisor
from .tuning import Tuner
from .watchdog import Phase

logger = logging.getLogger("dinov2")


@dataclass(frozen=True)
class Hook:
    """An action every so many steps (0: never) and after the last one; it may ask to stop by returning True."""

    every: int
    action: Callable[[TrainState], bool | None]
    phase: Phase | None = None  # what the action is watched as; None: part of the step
    at_start: bool = False  # also before the first step

    def is_due(self, state: TrainState, last: bool) -> bool:
        """Whether the action follows the step just taken."""
        if state.iteration == 0:
            return self.at_start
        return last or (self.every > 0 and state.iteration % self.every == 0)


def run_hooks(hooks: Sequence[Hook], state: TrainState, *, total: int, supervisor: Supervisor) -> bool:
    """Run what is due after a step, in order; a request to stop makes this the last step for the others.

    Where a signal breaks an evaluation off, the state remembers that the actions are still to be run.

    Returns:
        Whether an action asked to stop.
    """
    stop = state.hooks_pending = False
    try:
        for hook in hooks:
            if hook.is_due(state, last=stop or state.iteration >= total):
                with supervisor.phase(hook.phase) if hook.phase else nullcontext():
                    stop = bool(hook.action(state)) or stop
    except StopRequested:
        state.hooks_pending = True
    return stop


def export_teacher(model: SSLMetaArch, folder: Path) -> Path:
    """Write {"teacher": state dict of backbone and heads} to folder/teacher_checkpoint.pth.

    Raises:
        SaveError: on all ranks, if that cannot be done.
    """
    path = folder / "teacher_checkpoint.pth"
    # All ranks give their parts of what is sharded, and the main process gets the whole.
    weights = get_model_state_dict(model.teacher, options=StateDictOptions(full_state_dict=True, cpu_offload=True))

    def write() -> None:
        with atomic_path(path) as temporary:
            torch.save({"teacher": weights}, temporary)
        logger.info(f"teacher exported to {path}")

    try:
        on_main(write)
    except (OSError, SharedError) as error:
        raise SaveError(f"the teacher could not be exported to {path}: {error}") from error
    return path


def export_hook(every: int, output_dir: Path, *, total: int, stop_on_error: bool) -> Hook:
    """Export to eval/training_{iteration}, the iteration counted from 0 as in DINOv2.

    An export that fails stops the run if it is the last one or every failure is to.
    """

    def action(state: TrainState) -> None:
        try:
            export_teacher(state.model, output_dir / "eval" / f"training_{state.iteration - 1}")
        except SaveError as error:
            if stop_on_error or state.iteration >= total or state.early_stopping.stopped:
                raise
            logger.error(f"{error}. Training goes on")

    return Hook(every, action, Phase.SAVE)


def checkpoint_hook(every: int, checkpointer: Checkpointer) -> Hook:
    """Save the whole state."""
    return Hook(every, lambda state: save_state(state, checkpointer), Phase.SAVE)


def save_state(state: TrainState, checkpointer: Checkpointer) -> None:
    """Save the whole state, when all that was reported until then is on disk."""
    state.metrics.sync()
    checkpointer.save(state.snapshot(), state.iteration)


def poll_hook(checkpointer: Checkpointer) -> Hook:
    """Complete a checkpoint that was written in the background, and hear how that went."""
    return Hook(1, lambda state: checkpointer.poll())


def report_hook() -> Hook:
    """Write the step's line of metrics, if it gets one, before the checkpoint: a crash in between loses none."""
    return Hook(1, lambda state: state.metrics.report())


def tuning_hook(every: int, tuner: Tuner, sinks: Sequence[MetricSink], supervisor: Supervisor) -> Hook:
    """Evaluate, and ask to stop when the score has not improved for long enough."""

    def action(state: TrainState) -> bool:
        scores = tuner(state.model, state.iteration, supervisor.rounds)
        for sink in sinks:
            # Under the last iteration done, as the report that follows: sinks want steps that do not go back.
            sink.log({f"tune/{name}": value for name, value in scores.items()}, max(state.iteration - 1, 0))
        # The scores of one rank, so that rounding on different machines cannot part the ranks.
        stopping = state.early_stopping
        if stopping.update(broadcast_object(scores), state.iteration):
            logger.info(f"stopping: {stopping.tracking} has not improved since iteration {stopping.best_iteration}")
            state.metrics.stop()
        return stopping.stopped

    return Hook(every, action, Phase.EVALUATION, at_start=True)
