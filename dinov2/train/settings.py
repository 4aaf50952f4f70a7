"""Whether a run goes on with the settings that it began with."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dinov2.errors import UserError
from dinov2.utils.config import absolute_paths

from .data_identity import CHECKSUMS, GROUPS, LABELS, TILES

logger = logging.getLogger("dinov2")

GLOBAL_BATCH = "train.global_batch"  # no setting, but what three of them make together
GLOBAL_BATCH_HINT = (
    f" {GLOBAL_BATCH} is train.batch_size_per_gpu times train.gradient_accumulation_factor times the number of "
    "processes: to keep it on another number of processes, change the other two with it."
)
DATA = (TILES, CHECKSUMS, GROUPS, LABELS)
DATA_HINT = (
    " Which tiles come when follows from all of them. To learn from these, begin another run, which may start from a "
    "checkpoint of this one (MODEL.WEIGHTS=FOLDER)."
)

# Settings that may change at any time: where and how a run works, not what it computes.
FREE = (
    "train.output_dir",
    "train.num_workers",
    "train.save_frequency",
    "train.keep_last",
    "train.keep_every",
    "train.async_checkpoint",
    "train.on_save_error",
    "train.on_nonfinite",
    "train.max_nonfinite_steps",
    "train.indicators_every",
    "train.*_timeout",
    "train.activation_checkpointing",
    # As long as the global batch stays what it is.
    "train.batch_size_per_gpu",
    "train.gradient_accumulation_factor",
    "data.on_bad_tile",
    "data.max_bad_share",
    "evaluation.*",
    "tune.tune_every*",
    "tune.allow_overlap",
    "tune.probes",
    "tune.student",
    "tune.resamples",
    "tune.keep_best",
    "tune.knn.batch_size",
    "tune.knn.gather_on_cpu",
    "tune.early_stopping.enable",
    "tune.early_stopping.patience_pct",
    "tune.early_stopping.min_epoch_pct",
    "tensorboard.*",
    "wandb.*",
    # Read by nothing.
    "train.saveckp_freq",
    "train.cache_dataset",
)
# Settings that change results by no more than rounding does.
ROUNDING = ("compute_precision.*", "student.attention_backend", "train.deterministic")


def settings_of(cfg: DictConfig, *, global_batch_size: int, data: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The settings that a run must keep, and those that round, by their dotted names, as plain values.

    Args:
        data: of `identify_data`.
    """
    plain: Any = OmegaConf.to_container(cfg, resolve=True)
    settings = {name: value for name, value in _leaves(plain) if not _matches(name, FREE)}
    return {**settings, GLOBAL_BATCH: global_batch_size, **(data or {})}


def check_settings(saved: Mapping[str, Any], own: Mapping[str, Any], *, allow_changes: bool = False) -> None:
    """Compare the settings and tiles of a checkpoint with those of the run that goes on from it.

    Settings that only one of two versions of this program has are not compared, and neither is the place of tiles of
    which both know which they are.

    Raises:
        UserError: with all differences, if there are some and they are not allowed.
    """
    saved = absolute_paths(saved)
    known = {name.removeprefix(TILES) for name in saved.keys() & own.keys() if name.startswith(TILES)}
    changed = [name for name in sorted((saved.keys() & own.keys()) - known) if saved[name] != own[name]]
    rounding = [name for name in changed if _matches(name, ROUNDING)]
    others = [name for name in changed if name not in rounding]
    if rounding:
        logger.warning(f"results differ by rounding from here on, since {', '.join(rounding)} changed")
    if any(name.startswith(TILES) for name in own) and not known:
        logger.warning("the checkpoint does not say which tiles it was trained on; make sure that they are these")
    shown = [f"{name}: {saved[name]} -> {own[name]}" for name in others]
    if others and not allow_changes:
        raise UserError(_refusal(others, shown))
    if others:
        logger.warning(f"--allow-config-changes: the run goes on with {'; '.join(shown)}")


def _refusal(changed: Sequence[str], shown: Sequence[str]) -> str:
    data = [name for name in changed if name.startswith(DATA)]
    kinds = " and ".join(["tiles"] * bool(data) + ["settings"] * (len(data) < len(changed)))
    lines = "".join(f"\n  {line}" for line in shown)
    hints = DATA_HINT * bool(data) + GLOBAL_BATCH_HINT * (GLOBAL_BATCH in changed)
    return (
        f"the run began with other {kinds} than it is to go on with:{lines}\nGive the {kinds} that it had, or another "
        f"--output-dir, or --allow-config-changes to go on all the same.{hints}"
    )


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _leaves(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every setting; a list is one value."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
