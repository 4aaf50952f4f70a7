"""Where a run goes on: its checkpoints, the state in them, and its files of metrics."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from dinov2.distributed import is_main_process
from dinov2.errors import UserError
from dinov2.logging import MetricSink
from dinov2.logging.metrics_file import METRICS_FILE, truncate_metrics
from dinov2.utils.checkpoint.manifest import MANIFEST

from .checkpoint import Checkpointer, SavedCheckpoint
from .settings import check_settings
from .state import TrainState

logger = logging.getLogger("dinov2")


def build_checkpointer(cfg: Any, device: torch.device) -> Checkpointer:
    """Checkpoints as the `train` section describes them."""
    background = cfg.train.async_checkpoint
    return Checkpointer(
        Path(cfg.train.output_dir, "checkpoints"),
        keep_last=cfg.train.keep_last,
        keep_every=cfg.train.keep_every,
        background=device.type == "cuda" if background is None else background,
        stop_on_error=cfg.train.on_save_error == "stop",
    )


def check_initial(folder: str) -> None:
    """Check that MODEL.WEIGHTS names a checkpoint.

    Raises:
        UserError: if it does not.
    """
    if not Path(folder, MANIFEST).is_file():
        raise UserError(
            f"MODEL.WEIGHTS={folder} is no checkpoint: expected a folder checkpoints/step-XXXXXXX of a run. "
            "Exports and published weights are loaded by --pretrained-weights or head.head_path"
        )


def restore(
    state: TrainState, checkpointer: Checkpointer, *, initial: str = "", allow_config_changes: bool = False
) -> None:
    """Go on from the newest checkpoint.

    Args:
        initial: a checkpoint folder whose networks to start from where there is nothing to go on from.
        allow_config_changes: see `check_settings`.
    """
    saved = checkpointer.load_newest()
    if saved is None and initial:
        check_initial(initial)
        state.load_networks(SavedCheckpoint(Path(initial)))
        logger.info(f"student and teacher start from {initial}")
    if saved is not None:
        check_settings(saved.values["settings"], state.settings, allow_changes=allow_config_changes)
        state.load(saved)
        checkpointer.remove_old(state.iteration, state.early_stopping.kept_steps())
        logger.info(
            f"going on from {saved.path}: {state.iteration:,d} iterations, {state.samples_consumed:,d} samples are done"
        )


def attach_metrics_file(state: TrainState, output_dir: Path, sinks: Sequence[MetricSink]) -> None:
    """Let the main process's reports go to `training_metrics.json` and the sinks, from this iteration on."""
    if not is_main_process():
        return
    path = output_dir / METRICS_FILE
    truncate_metrics(path, state.iteration)
    truncate_metrics(output_dir / "results" / "tune.jsonl", state.iteration + (not state.hooks_pending))
    state.metrics.output_file = path

    def to_sinks(line: Mapping[str, float]) -> None:
        for sink in sinks:
            sink.log({f"train/{name}": value for name, value in line.items()}, int(line["iteration"]))

    state.metrics.on_report = to_sinks
