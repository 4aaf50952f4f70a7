"""What happens between steps: teacher export, evaluation, checkpoints, stopping."""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from dinov2.distributed.outcomes import on_main
from dinov2.logging import MetricSink
from dinov2.utils.outputs import output_errors

from .best import export_best
from .checkpoint import Checkpointer, SaveError
from .export import export_networks, export_teacher
from .preemption import StopRequested
from .state import TrainState
from .supervision import Supervisor
from .tuning import Tuner, append_scores
from .watchdog import Phase

logger = logging.getLogger("dinov2")


@dataclass(frozen=True)
class Hook:
    """An action every so many steps and after the last one; it may ask to stop by returning True.

    Attributes:
        every: 0: never.
        phase: what the action is watched as; None: part of the step.
        at_start: also before the first step.
        also: other steps that it follows.
    """

    every: int
    action: Callable[[TrainState], bool | None]
    phase: Phase | None = None
    at_start: bool = False
    also: Callable[[TrainState], bool] = lambda state: False

    def is_due(self, state: TrainState, last: bool) -> bool:
        """Whether the action follows the step just taken."""
        if state.iteration == 0:
            return self.at_start
        return last or (self.every > 0 and state.iteration % self.every == 0) or self.also(state)


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


@dataclass(frozen=True)
class ExportErrors:
    """What becomes of an export that fails: it stops the run if it is the last one or every failure is to.

    Attributes:
        total: iterations of the run.
        stop: whether every failure stops the run.
    """

    total: int
    stop: bool

    @contextmanager
    def around(self, state: TrainState) -> Iterator[None]:
        """Pass errors of the block on, or only log them."""
        try:
            yield
        except SaveError as error:
            if self.stop or state.iteration >= self.total or state.early_stopping.stopped:
                raise
            logger.error(f"{error}. Training goes on")


def export_hook(every: int, output_dir: Path, errors: ExportErrors, *, student: bool) -> Hook:
    """Export to eval/training_{iteration}, the iteration counted from 0 as in DINOv2.

    Args:
        student: export the student and each head alone beside the teacher.
    """
    export = export_networks if student else export_teacher

    def action(state: TrainState) -> None:
        with errors.around(state):
            export(state.model, output_dir / "eval" / f"training_{state.iteration - 1}")

    return Hook(every, action, Phase.SAVE)


def checkpoint_hook(every: int, checkpointer: Checkpointer) -> Hook:
    """Save the whole state, also after a step that has the best score so far."""

    def is_kept(state: TrainState) -> bool:
        return state.iteration in state.early_stopping.kept_steps()

    return Hook(every, lambda state: save_state(state, checkpointer), Phase.SAVE, also=is_kept)


def save_state(state: TrainState, checkpointer: Checkpointer) -> None:
    """Save the whole state, when all that was reported until then is on disk."""
    state.metrics.sync()
    checkpointer.save(state.snapshot(), state.iteration)


def poll_hook(checkpointer: Checkpointer) -> Hook:
    """Complete a checkpoint that was written in the background, and hear how that went."""
    return Hook(1, lambda state: checkpointer.poll())


def report_hook() -> Hook:
    """Write the step's line of metrics, if it gets one, before the checkpoint: a crash in between loses none."""

    def action(state: TrainState) -> None:
        with output_errors(state.metrics.output_file) if state.metrics.output_file else nullcontext():
            state.metrics.report()

    return Hook(1, action)


def tuning_hook(
    every: int,
    tuner: Tuner,
    output_dir: Path,
    *,
    sinks: Sequence[MetricSink],
    supervisor: Supervisor,
    errors: ExportErrors,
) -> Hook:
    """Evaluate, keep the best teacher, and ask to stop when the score has not improved for long enough."""

    def action(state: TrainState) -> bool:
        scores = tuner(state.model, state.iteration, supervisor.rounds)
        on_main(lambda: append_scores(output_dir / "results" / "tune.jsonl", scores, state.iteration))
        for sink in sinks:
            # Under the last iteration done, as the report that follows: sinks want steps that do not go back.
            sink.log({f"tune/{name}": value for name, value in scores.items()}, max(state.iteration - 1, 0))
        tracked = state.early_stopping
        tracked.update(scores, state.iteration)
        if tracked.keeps_best and tracked.is_best_at(state.iteration):
            with errors.around(state), supervisor.phase(Phase.SAVE):
                export_best(state.model, tracked, output_dir / "eval" / "best")
        if tracked.stopped:
            logger.info(f"stopping: {tracked.score_name} has not improved since iteration {tracked.best_iteration}")
            state.metrics.stop()
        return tracked.stopped

    return Hook(every, action, Phase.EVALUATION, at_start=True)
