"""Train a vision transformer with DINOv2: on a CPU, on one GPU, or on many through torchrun.

    python dinov2/train/train.py --config-file FILE --output-dir FOLDER [key=value ...]

The same command again goes on where the run was.
"""

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # Threads that wait for each other must not spin: where cores are shared with a loader's workers or other jobs,
    # a step on a CPU then takes five times as long. OpenMP reads this when torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    if not __package__:  # started by its path: make the package importable without an installation
        sys.path[0] = str(Path(__file__).resolve().parents[2])

import torch

from dinov2 import distributed
from dinov2.data import Batch
from dinov2.errors import UserError
from dinov2.logging import MetricLogger, make_sinks
from dinov2.logging.helpers import truncate_metrics
from dinov2.models.weights import load_pretrained_backbone
from dinov2.train.checkpoint import Checkpointer, load_checkpoint, set_aside
from dinov2.train.hooks import Hook, checkpoint_hook, export_hook, export_teacher, run_hooks, tuning_hook
from dinov2.train.optimization import (
    average_over_ranks,
    build_grad_scaler,
    build_optimizer,
    check_finite,
    clip_gradients,
    step_optimizer,
)
from dinov2.train.plan import TrainingPlan, build_loader, plan_training
from dinov2.train.schedules import Schedules, ScheduleValues, apply_to_optimizer
from dinov2.train.ssl_meta_arch import NUM_GLOBAL_CROPS, SSLMetaArch
from dinov2.train.state import TrainState
from dinov2.train.throughput import ThroughputMeter
from dinov2.train.tuning import EarlyStopping
from dinov2.utils.cli import run_command
from dinov2.utils.config import setup, write_config
from dinov2.utils.rng import derive_seed

logger = logging.getLogger("dinov2")

LOG_EVERY = 10  # iterations between reports


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The options of the training command."""
    parser = argparse.ArgumentParser("DINOv2 training", add_help=add_help, allow_abbrev=False)
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="YAML file with settings that differ from the defaults"
    )
    parser.add_argument(
        "--output-dir", "--output_dir", default="output", metavar="DIR", help="folder of the run (default: output)"
    )
    parser.add_argument("--input-dir", metavar="DIR", help="train on the images below this folder")
    parser.add_argument("--pretrained-weights", metavar="FILE", help="weights of the backbone to start from")
    parser.add_argument("--no-resume", action="store_true", help="start over even if the run folder has checkpoints")
    parser.add_argument("--eval-only", action="store_true", help="evaluate and export the newest checkpoint, then stop")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="settings, such as optim.epochs=10")
    return parser


def main(args: argparse.Namespace) -> int:
    """Run the training command."""
    cfg = setup(args)
    plan = plan_training(cfg)
    write_config(cfg)
    model = build_model(cfg)
    if args.eval_only:
        do_test(cfg, model, plan)
    else:
        do_train(cfg, model, resume=not args.no_resume, plan=plan)
    distributed.disable()
    return 0


def build_model(cfg: Any) -> SSLMetaArch:
    """Student and teacher on this process's device, equal on all ranks and to each other."""
    model = SSLMetaArch(cfg).to(distributed.get_device())
    model.fp16_scaler = build_grad_scaler(cfg, model.device)
    if cfg.student.pretrained_weights:
        load_pretrained_backbone(model.student.get_submodule("backbone"), cfg.student.pretrained_weights)
    model.prepare_for_distributed_training()
    if distributed.is_main_process():
        count = sum(parameter.numel() for parameter in model.student["backbone"].parameters())
        logger.info(f"backbone {cfg.student.arch}/{cfg.student.patch_size}: {count / 1e6:.1f} million parameters")
    return model


def do_train(
    cfg: Any, model: SSLMetaArch, resume: bool = False, *, plan: TrainingPlan | None = None
) -> dict[str, float]:
    """Train to the end of the schedule.

    Args:
        cfg: a complete configuration.
        resume: go on from the newest checkpoint in the output folder, if there is one.
        plan: of `plan_training(cfg)`; made here if not given.
    Returns:
        The mean of every metric over the iterations done here and before.
    """
    plan = plan or plan_training(cfg)
    output_dir = Path(cfg.train.output_dir)
    total = plan.timeline.total
    schedules = Schedules(cfg, plan.timeline)
    state = build_state(cfg, model, plan)
    checkpointer = Checkpointer(output_dir / "checkpoints", keep_last=cfg.train.keep_last)
    if not resume:
        set_aside(output_dir)
    restore(state, checkpointer, initial=cfg.MODEL.WEIGHTS)
    if state.iteration >= total or state.early_stopping.stopped:
        logger.info(f"the run in {output_dir} is finished ({state.iteration} of {total} iterations); nothing to do")
        return global_averages(state.metrics)
    sinks = make_sinks(cfg, output_dir)
    attach_metrics_file(state, output_dir, sinks)
    hooks = build_hooks(cfg, plan, checkpointer, output_dir, sinks)
    if state.iteration == 0 and plan.tuner is not None:
        tuning_hook(1, plan.tuner, sinks).action(state)

    model.train()
    loader = build_loader(cfg, plan.dataset, start=state.samples_consumed, device=model.device)
    for batch in state.metrics.log_every(loader, LOG_EVERY, "Training", total, state.iteration):
        figures = train_step(cfg, state, batch, schedules.at(state.iteration))
        state.metrics.update(**figures)
        state.iteration += 1
        state.samples_consumed += plan.global_batch_size
        with state.metrics.untimed():
            if run_hooks(hooks, state, total=total):
                state.metrics.stop()
    for sink in sinks:
        sink.close()
    return global_averages(state.metrics)


def train_step(cfg: Any, state: TrainState, batch: Batch, values: ScheduleValues) -> dict[str, float]:
    """One step of student and teacher on a batch; returns the figures to log."""
    model, optimizer = state.model, state.optimizer
    # Dropped branches are a function of seed, step and rank, so no generator has to be saved.
    torch.manual_seed(derive_seed(cfg.train.seed, state.iteration, distributed.get_global_rank()))
    apply_to_optimizer(values, optimizer)
    optimizer.zero_grad(set_to_none=True)
    output = model.forward_backward(batch, teacher_temp=values.teacher_temp)
    grad_norms = clip_gradients(model, optimizer, cfg.optim.clip_grad)
    figures = average_over_ranks(output, grad_norms)
    check_finite(figures, state.iteration, scaled=model.fp16_scaler is not None)
    step_optimizer(model, optimizer)
    model.update_teacher(values.momentum)
    scheduled = {
        "lr": values.lr,
        "wd": values.weight_decay,
        "mom": values.momentum,
        "last_layer_lr": values.last_layer_lr,
        "current_batch_size": len(batch["collated_global_crops"]) / NUM_GLOBAL_CROPS,
    }
    return {**scheduled, **figures, "teacher_temp": values.teacher_temp}


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
    state.load_state_dict(saved)
    if plan.tuner is not None:
        plan.tuner(model, state.iteration)
    export_teacher(model, output_dir / "eval" / f"manual_{state.iteration}")


def build_state(cfg: Any, model: SSLMetaArch, plan: TrainingPlan) -> TrainState:
    """The state of a run that has not begun."""
    meter = ThroughputMeter(model, global_batch_size=plan.global_batch_size, world_size=distributed.get_global_size())
    return TrainState(
        model=model,
        optimizer=build_optimizer(cfg, model.get_params_groups(), model.device),
        metrics=MetricLogger(derive=meter),
        early_stopping=EarlyStopping.from_config(cfg, plan.timeline),
    )


def restore(state: TrainState, checkpointer: Checkpointer, *, initial: str = "") -> None:
    """Go on from the newest checkpoint.

    Args:
        initial: a checkpoint folder whose networks to start from where there is nothing to go on from.
    """
    saved = checkpointer.load_newest()
    if saved is None and initial:
        state.load_networks(load_checkpoint(Path(initial)))
        logger.info(f"student and teacher start from {initial}")
    if saved is not None:
        state.load_state_dict(saved)
        logger.info(f"going on after {state.iteration} iterations, {state.samples_consumed:,d} samples")


def attach_metrics_file(state: TrainState, output_dir: Path, sinks: list[Any]) -> None:
    """Let the main process's reports go to `training_metrics.json` and the sinks, from this iteration on."""
    if not distributed.is_main_process():
        return
    path = output_dir / "training_metrics.json"
    truncate_metrics(path, state.iteration)
    truncate_metrics(output_dir / "results" / "tune.jsonl", state.iteration + 1)
    state.metrics.output_file = path

    def to_sinks(line: Any) -> None:
        for sink in sinks:
            sink.log({f"train/{name}": value for name, value in line.items()}, int(line["iteration"]))

    state.metrics.on_report = to_sinks


def build_hooks(
    cfg: Any, plan: TrainingPlan, checkpointer: Checkpointer, output_dir: Path, sinks: list[Any]
) -> list[Hook]:
    """What happens between steps, in order; the checkpoint comes last and holds what the others decided."""
    hooks = [
        export_hook(plan.timeline.export_every, output_dir),
        checkpoint_hook(plan.timeline.save_every, checkpointer),
    ]
    if plan.tuner is not None:
        hooks.insert(0, tuning_hook(plan.timeline.tune_every, plan.tuner, sinks))
    return hooks


def global_averages(metrics: MetricLogger) -> dict[str, float]:
    """The mean of every metric over all its values."""
    return {name: meter.global_avg for name, meter in metrics.meters.items()}


if __name__ == "__main__":
    run_command(lambda: main(get_args_parser().parse_intermixed_args()))
