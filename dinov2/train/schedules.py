"""How learning rate, weight decay, momentum and temperature go over a run, and how long everything takes.

Schedules are pure functions of the iteration. Durations given in epochs or as a share of the training are
resolved to iterations once, in `resolve_timeline`.
"""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from torch.optim import Optimizer

from dinov2.errors import UserError
from dinov2.utils.utils import CosineScheduler

LONGEST = 10**8  # iterations: 800 MB for each schedule


@dataclass(frozen=True)
class Timeline:
    """All durations of a run, in iterations; 0 where something is off."""

    epoch_length: int
    total: int
    warmup: int
    teacher_temp_warmup: int
    freeze_last_layer: int
    freeze_backbone: int
    save_every: int
    export_every: int
    tune_every: int
    early_stopping_patience: int
    early_stopping_minimum: int

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:,d}" for name, value in asdict(self).items())


def resolve_timeline(cfg: Any, *, num_samples: int, global_batch_size: int) -> Timeline:
    """Turn epochs and shares into iterations.

    Raises:
        UserError: if the batch is larger than the data set, or warm-up or freeze outlast the training.
    """
    if global_batch_size > num_samples:
        raise UserError(
            f"a batch of {global_batch_size} (train.batch_size_per_gpu times train.gradient_accumulation_factor times "
            f"processes) is larger than the data set of {num_samples} samples: lower train.batch_size_per_gpu so that "
            f"their product is {num_samples} or less"
        )
    epoch = cfg.train.OFFICIAL_EPOCH_LENGTH or num_samples // global_batch_size
    total = cfg.optim.max_iter or max(round(cfg.optim.epochs * epoch), 1)

    def iterations(section: str, name: str) -> int:
        share, epochs = cfg[section][f"{name}_pct"], cfg[section][f"{name}_epochs"]
        return round(share * total) if share is not None else round((epochs or 0) * epoch)

    timeline = Timeline(
        epoch_length=epoch,
        total=total,
        warmup=iterations("optim", "warmup"),
        teacher_temp_warmup=iterations("teacher", "warmup_teacher_temp"),
        freeze_last_layer=iterations("optim", "freeze_last_layer"),
        freeze_backbone=cfg.optim.freeze_backbone_iterations,
        save_every=_period(cfg.train.save_frequency, epoch),
        export_every=cfg.evaluation.eval_period_iterations,
        tune_every=cfg.tune.tune_every_iterations or _period(cfg.tune.tune_every_pct, epoch),
        early_stopping_patience=max(round(cfg.tune.early_stopping.patience_pct * total), 1),
        early_stopping_minimum=round(cfg.tune.early_stopping.min_epoch_pct * total),
    )
    _check_timeline(timeline)
    return timeline


def _period(epochs: float | None, epoch_length: int) -> int:
    """Iterations between events that come every so many epochs; at least 1 unless they are off."""
    return max(round(epochs * epoch_length), 1) if epochs else 0


def _check_timeline(timeline: Timeline) -> None:
    if timeline.total > LONGEST:
        raise UserError(
            f"the training would last {timeline.total:,d} iterations, expected {LONGEST:,d} at most: lower "
            "optim.epochs or train.OFFICIAL_EPOCH_LENGTH, or set optim.max_iter"
        )
    for key, value in (("warmup", timeline.warmup), ("freeze_last_layer", timeline.freeze_last_layer)):
        if value >= timeline.total > 0 and value > 0:
            raise UserError(
                f"optim.{key}_epochs (or _pct) lasts {value:,d} iterations, but the training only {timeline.total:,d}; "
                f"an epoch is {timeline.epoch_length:,d} iterations (train.OFFICIAL_EPOCH_LENGTH). Shorten it, for "
                f"example with optim.{key}_pct=0.1, or train longer"
            )
    if timeline.freeze_backbone >= timeline.total:
        raise UserError(
            f"optim.freeze_backbone_iterations={timeline.freeze_backbone:,d} outlasts the training of "
            f"{timeline.total:,d} iterations; optim.frozen=[backbone] trains heads only, and takes less time"
        )


class ScheduleValues(NamedTuple):
    """What holds at one iteration."""

    lr: float
    last_layer_lr: float
    weight_decay: float
    momentum: float
    teacher_temp: float
    frozen: tuple[str, ...] = ()  # parts of the student that stay as they are


class Schedules:
    """All schedules of a run."""

    def __init__(self, cfg: Any, timeline: Timeline) -> None:
        """Lay out the schedules of a configuration whose optim.lr is scaled already."""
        optim, teacher, total = cfg.optim, cfg.teacher, timeline.total
        self.lr = CosineScheduler(optim.lr, optim.min_lr, total, timeline.warmup)
        self.weight_decay = CosineScheduler(optim.weight_decay, optim.weight_decay_end, total)
        self.momentum = CosineScheduler(teacher.momentum_teacher, teacher.final_momentum_teacher, total)
        warmup = timeline.teacher_temp_warmup
        self.teacher_temp = CosineScheduler(
            teacher.teacher_temp, teacher.teacher_temp, warmup, warmup, teacher.warmup_teacher_temp
        )
        self.freeze_last_layer = timeline.freeze_last_layer
        self.freeze_backbone = timeline.freeze_backbone

    def at(self, iteration: int) -> ScheduleValues:
        """The values of an iteration."""
        lr = self.lr[iteration]
        return ScheduleValues(
            lr=lr,
            last_layer_lr=0.0 if iteration < self.freeze_last_layer else lr,
            weight_decay=self.weight_decay[iteration],
            momentum=self.momentum[iteration],
            teacher_temp=self.teacher_temp[iteration],
            frozen=("backbone",) if iteration < self.freeze_backbone else (),
        )


def apply_to_optimizer(values: ScheduleValues, optimizer: Optimizer) -> None:
    """Set learning rate and weight decay of every group, by its multipliers."""
    for group in optimizer.param_groups:
        lr = values.last_layer_lr if group["is_last_layer"] else values.lr
        # Weight decay is multiplied by the rate as well.
        group["lr"] = 0.0 if group["part"] in values.frozen else lr * group["lr_multiplier"]
        group["weight_decay"] = values.weight_decay * group["wd_multiplier"]


def scaled_learning_rate(cfg: Any, global_batch_size: int) -> float:
    """The learning rate of a batch of all processes, by optim.scaling_rule."""
    base_lr = cfg.optim.base_lr
    rules = {
        "sqrt_wrt_1024": base_lr * (global_batch_size / 1024) ** 0.5,
        "linear_wrt_256": base_lr * global_batch_size / 256,
        "none": cfg.optim.lr,
    }
    return float(rules[cfg.optim.scaling_rule])
