"""Train a vision transformer with DINOv2: on a CPU, on one GPU, or on many through torchrun.

    python dinov2/train/train.py --config-file FILE --output-dir FOLDER [key=value ...]

The same command again goes on where the run was.
"""

import argparse
import logging
import os
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Threads that wait for each other must not spin: where cores are shared with a loader's workers or other jobs,
    # a step on a CPU then takes five times as long. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not __package__:  # started by its path: make the package importable without an installation
        sys.path[0] = str(Path(__file__).resolve().parents[2])
    from dinov2.train.arguments import start

    start()

from dinov2 import distributed
from dinov2.distributed.outcomes import on_main
from dinov2.errors import UserError
from dinov2.hub.frozen import load_pretrained
from dinov2.logging import MetricLogger, MetricSink, make_sinks
from dinov2.train.arguments import get_args_parser
from dinov2.train.checkpoint import Checkpointer
from dinov2.train.early_stopping import EarlyStopping
from dinov2.train.export import export_teacher
from dinov2.train.guards import NonFiniteGuard
from dinov2.train.hooks import (
    ExportErrors,
    Hook,
    checkpoint_hook,
    export_hook,
    poll_hook,
    report_hook,
    run_hooks,
    tuning_hook,
)
from dinov2.train.loop import is_finished, save_interrupted, take_steps
from dinov2.train.optimization import build_grad_scaler, build_optimizer
from dinov2.train.outcome import describe_outcome
from dinov2.train.plan import CHECKS, TrainingPlan, build_quarantine, plan_training
from dinov2.train.preemption import Interrupted
from dinov2.train.resume import attach_metrics_file, build_checkpointer, restore
from dinov2.train.run_folder import locked, set_aside
from dinov2.train.settings import settings_of
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.starting_point import StartingPoint
from dinov2.train.state import TrainState
from dinov2.train.supervision import Supervisor, supervision
from dinov2.train.throughput import ThroughputMeter, describe_step
from dinov2.train.tuning import write_scores
from dinov2.train.watchdog import Phase, TimeLimits
from dinov2.utils.config import get_cfg_from_args, join, write_config

logger = logging.getLogger("dinov2")

__all__ = ["build_model", "do_test", "do_train", "get_args_parser", "main"]


def main(args: argparse.Namespace) -> int:
    """Run the training command."""
    cfg = get_cfg_from_args(args, checks=CHECKS)
    with supervision(TimeLimits.from_config(cfg)) as supervisor:
        with supervisor.phase(Phase.MEETING):
            join(cfg, timeout=supervisor.watchdog.timeout(Phase.OPENING))
        try:
            run(cfg, args, supervisor)
        except Interrupted:
            distributed.disable()
            raise
        distributed.disable()
    return 0


def run(cfg: Any, args: argparse.Namespace, supervisor: Supervisor) -> None:
    """Train, or evaluate what was trained, as one of the processes that have met."""
    with ExitStack() as folder:
        with supervisor.phase(Phase.OPENING):
            if not args.eval_only:
                folder.enter_context(locked(Path(cfg.train.output_dir)))
            plan = plan_training(cfg)
        with supervisor.phase(Phase.BUILDING):
            model = build_model(cfg, plan.start)
        if args.eval_only:
            do_test(cfg, model, plan)
            return
        allowed = args.allow_config_changes
        do_train(cfg, model, not args.no_resume, plan=plan, allow_config_changes=allowed, supervisor=supervisor)


def build_model(cfg: Any, start: StartingPoint | None = None) -> SSLMetaArch:
    """Student and teacher on this process's device, equal on all ranks.

    Args:
        start: what to start both from; without it they are equal to each other.
    """
    model = SSLMetaArch(cfg).to(distributed.get_device())
    model.fp16_scaler = build_grad_scaler(cfg, model.student.keys(), model.device)
    load_pretrained(model.student.get_submodule("backbone"), cfg.student)
    if start is not None:
        start.load(model)
    model.prepare_for_distributed_training(copy_student=start is None)
    if distributed.is_main_process():
        count = sum(parameter.numel() for parameter in model.student["backbone"].parameters())
        logger.info(f"backbone {cfg.student.arch}/{cfg.student.patch_size}: {count / 1e6:.1f} million parameters")
    return model


def do_train(
    cfg: Any,
    model: SSLMetaArch,
    resume: bool = False,
    *,
    plan: TrainingPlan | None = None,
    allow_config_changes: bool = False,
    supervisor: Supervisor | None = None,
) -> dict[str, float]:
    """Train to the end of the schedule.

    Args:
        cfg: a complete configuration.
        resume: go on from the newest checkpoint in the output folder, if there is one.
        plan: of `plan_training(cfg)`; made here if not given.
        allow_config_changes: see `check_settings`.
        supervisor: watches over the run; made here if not given.
    Returns:
        The mean of every metric over the iterations done here and before.
    Raises:
        Interrupted: if a signal asked to stop; the state is saved, and the same call goes on.
    """
    if supervisor is None:
        with supervision(TimeLimits.from_config(cfg)) as supervisor:
            return do_train(
                cfg, model, resume, plan=plan, allow_config_changes=allow_config_changes, supervisor=supervisor
            )
    plan = plan or plan_training(cfg)
    output_dir = Path(cfg.train.output_dir)
    total = plan.timeline.total
    with supervisor.phase(Phase.RESUMING):
        state = build_state(cfg, model, plan)
        checkpointer = build_checkpointer(cfg, model.device)
        if not resume:
            set_aside(output_dir)
        restore(state, checkpointer, initial=cfg.MODEL.WEIGHTS, allow_config_changes=allow_config_changes)
        write_config(cfg)
        if is_finished(state, total):
            logger.info(f"the run in {output_dir} is finished ({state.iteration} of {total} iterations); nothing to do")
            tell_outcome(cfg, state, total)
            return global_averages(state.metrics)
        sinks = make_sinks(cfg, output_dir, start=state.iteration)
        attach_metrics_file(state, output_dir, sinks)
        quarantine = build_quarantine(cfg, plan.dataset)
    with supervisor.steering():
        hooks = build_hooks(cfg, plan, checkpointer, output_dir, sinks, supervisor)
        if state.hooks_pending:
            run_hooks(hooks, state, total=total, supervisor=supervisor)
        if not is_finished(state, total):
            take_steps(cfg, state, plan, hooks=hooks, quarantine=quarantine, supervisor=supervisor)
        if not is_finished(state, total):
            save_interrupted(state, checkpointer, sinks, supervisor)
        with supervisor.phase(Phase.SAVE):
            checkpointer.finish()
    for sink in sinks:
        sink.close()
    tell_outcome(cfg, state, total)
    return global_averages(state.metrics)


def tell_outcome(cfg: Any, state: TrainState, total: int) -> None:
    """Log how a finished training went and what to do next."""
    if distributed.is_main_process():
        outcome = describe_outcome(
            state.early_stopping,
            iteration=state.iteration,
            total=total,
            output_dir=Path(cfg.train.output_dir),
            tiles=[path or "..." for path in (cfg.tune.query_dataset_path, cfg.tune.test_dataset_path)],
        )
        logger.info(outcome)


def do_test(cfg: Any, model: SSLMetaArch, plan: TrainingPlan) -> None:
    """Evaluate the newest checkpoint's teacher and export it to eval/manual_{iteration}.

    Raises:
        UserError: if there is no checkpoint.
    """
    output_dir = Path(cfg.train.output_dir)
    saved = Checkpointer(output_dir / "checkpoints").load_newest()
    if saved is None:
        raise UserError(f"--eval-only evaluates a checkpoint, but there is none in {output_dir / 'checkpoints'}")
    state = build_state(cfg, model, plan)
    state.load(saved)
    folder = output_dir / "eval" / f"manual_{state.iteration}"
    if plan.tuner is not None:
        scores = plan.tuner(model, state.iteration)
        on_main(lambda: write_scores(folder / "scores.json", scores, state.iteration))
    export_teacher(model, folder)


def build_state(cfg: Any, model: SSLMetaArch, plan: TrainingPlan) -> TrainState:
    """The state of a run that has not begun here."""
    begun = plan.start.iteration if plan.start else 0
    meter = ThroughputMeter(model, global_batch_size=plan.global_batch_size, world_size=distributed.get_global_size())
    return TrainState(
        iteration=begun,
        samples_consumed=begun * plan.global_batch_size,
        model=model,
        optimizer=build_optimizer(cfg, model.get_params_groups()),
        metrics=MetricLogger(derive=meter, describe=describe_step),
        early_stopping=EarlyStopping.from_config(cfg, plan.timeline),
        guard=NonFiniteGuard.from_config(cfg, name_tile=lambda tile: str(plan.dataset.locate(tile))),
        settings=settings_of(cfg, global_batch_size=plan.global_batch_size, data=plan.data),
    )


def build_hooks(
    cfg: Any,
    plan: TrainingPlan,
    checkpointer: Checkpointer,
    output_dir: Path,
    sinks: list[MetricSink],
    supervisor: Supervisor,
) -> list[Hook]:
    """What happens between steps, in order; the checkpoint comes last and holds what the others decided."""
    errors = ExportErrors(plan.timeline.total, stop=cfg.train.on_save_error == "stop")
    hooks = [
        poll_hook(checkpointer),
        export_hook(plan.timeline.export_every, output_dir, errors, student=cfg.evaluation.export_student),
        report_hook(),
        checkpoint_hook(plan.timeline.save_every, checkpointer),
    ]
    if plan.tuner is not None:
        every = plan.timeline.tune_every
        hook = tuning_hook(every, plan.tuner, output_dir, sinks=sinks, supervisor=supervisor, errors=errors)
        hooks.insert(0, hook)
    return hooks


def global_averages(metrics: MetricLogger) -> dict[str, float]:
    """The mean of every metric over all its values."""
    return {name: meter.global_avg for name, meter in metrics.meters.items()}
