"""The loop over steps, and what is saved where it is broken off."""

import logging
from collections.abc import Sequence
from typing import Any, NoReturn

from dinov2 import distributed
from dinov2.data.quarantine import Quarantine
from dinov2.logging import MetricSink

from .checkpoint import Checkpointer
from .collapse import CollapseAlarm
from .hooks import Hook, run_hooks, save_state
from .plan import TrainingPlan, build_loader
from .preemption import Interrupted
from .schedules import Schedules
from .state import TrainState
from .step import micro_batches, train_step
from .supervision import Supervisor
from .watchdog import Phase

logger = logging.getLogger("dinov2")

LOG_EVERY = 10  # iterations between reports


def take_steps(
    cfg: Any,
    state: TrainState,
    plan: TrainingPlan,
    *,
    hooks: Sequence[Hook],
    quarantine: Quarantine,
    supervisor: Supervisor,
) -> None:
    """Train until the schedule ends, a hook asks to stop, or a signal does."""
    total, schedules = plan.timeline.total, Schedules(cfg, plan.timeline)
    images = cfg.train.batch_size_per_gpu * distributed.get_global_size()
    alarm = CollapseAlarm.after_warmup(plan.timeline.warmup, images=images)
    state.model.train()
    batches = supervisor.start(build_loader(cfg, plan.dataset, start=state.samples_consumed, device=state.model.device))
    steps = supervisor.steps(micro_batches(batches, cfg.train.gradient_accumulation_factor))
    for group in state.metrics.log_every(steps, LOG_EVERY, "Training", total, state.iteration):
        for batch in group:
            quarantine.note(batch["bad_tiles"])
        report = train_step(cfg, state, group, schedules.at(state.iteration), counts={"bad_tiles": quarantine.pending})
        quarantine.share(report.counts["bad_tiles"])
        state.metrics.update(**report.figures)
        state.metrics.show(**report.latest)
        alarm.look(report.latest, state.iteration)
        state.iteration += 1
        state.samples_consumed += plan.global_batch_size
        with state.metrics.untimed():
            if run_hooks(hooks, state, total=total, supervisor=supervisor):
                state.metrics.stop()


def is_finished(state: TrainState, total: int) -> bool:
    """Whether all steps are taken, or enough of them, and what follows the last one is done."""
    return (state.iteration >= total or state.early_stopping.stopped) and not state.hooks_pending


def save_interrupted(
    state: TrainState, checkpointer: Checkpointer, sinks: list[MetricSink], supervisor: Supervisor
) -> NoReturn:
    """Save what a signal to stop leaves undone.

    Raises:
        Interrupted: always.
    """
    with supervisor.phase(Phase.SAVE):
        save_state(state, checkpointer)
        checkpointer.finish()
    for sink in sinks:
        sink.close()
    signals = supervisor.signals.exchange()
    logger.info(
        f"asked to stop by {', '.join(sorted(number.name for number in signals))}: saved after {state.iteration} "
        "iterations, and the same command goes on"
    )
    raise Interrupted(signals)
