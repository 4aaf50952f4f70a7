"""Settings that change nothing beside the others: which, when, and what is used instead.

A setting of which this table says so, and which differs from its default, is told when a training begins.
"""

from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from .merge import complete_config, leaf_keys
from .schema import PARTS
from .validate_tune import evaluates


class Unused(NamedTuple):
    """Keys that have no effect under a condition.

    Attributes:
        keys: patterns of dotted names.
        when: configuration, number of processes -> whether they have none.
        instead: what holds.
    """

    keys: tuple[str, ...]
    when: Callable[[Any, int], bool]
    instead: str


def unused_settings(cfg: DictConfig, *, processes: int) -> Iterator[str]:
    """A line for each reason: the settings that differ from their defaults without effect, and what is used instead."""
    default = complete_config({})
    given = {key: OmegaConf.select(cfg, key) for key in leaf_keys(cfg)}
    changed = {key: value for key, value in given.items() if value != OmegaConf.select(default, key)}
    for row in ROWS:
        if not row.when(cfg, processes):
            continue
        found = [key for key in changed if any(fnmatchcase(key, pattern) for pattern in row.keys)]
        if found:
            yield f"without effect: {', '.join(f'{key}={changed.pop(key)}' for key in found)}; {row.instead}"


def _always(cfg: Any, processes: int) -> bool:
    return True


def _lasts_nothing(section: Any, name: str) -> bool:
    """Whether a duration that is told in epochs or as a share is 0."""
    return not (section[f"{name}_pct"] or section[f"{name}_epochs"])


def _counts_no_epochs(cfg: Any, processes: int) -> bool:
    optim, teacher = cfg.optim, cfg.teacher
    in_epochs = (optim.warmup_epochs, optim.freeze_last_layer_epochs, teacher.warmup_teacher_temp_epochs)
    every = (cfg.train.save_frequency, evaluates(cfg.tune) and cfg.tune.tune_every_pct)
    return optim.max_iter is not None and not any((*in_epochs, *every))


def _heads_frozen(cfg: Any, processes: int) -> bool:
    heads = PARTS[1:] if cfg.ibot.separate_head and cfg.ibot.loss_weight else PARTS[1:2]
    return set(heads) <= set(cfg.optim.frozen)


# The first row that names a key speaks for it.
ROWS = (
    Unused(
        ("train.saveckp_freq", "train.cache_dataset", "compute_precision.*.buffer_dtype"),
        _always,
        "nothing reads it, here and in DINOv2: train.save_frequency says how often checkpoints are written",
    ),
    Unused(
        ("optim.lr",),
        lambda cfg, n: cfg.optim.scaling_rule != "none",
        "the learning rate is optim.base_lr, scaled by optim.scaling_rule; scaling_rule=none takes optim.lr",
    ),
    Unused(
        ("optim.base_lr",),
        lambda cfg, n: cfg.optim.scaling_rule == "none",
        "optim.scaling_rule=none takes the learning rate from optim.lr",
    ),
    Unused(
        ("optim.epochs",),
        lambda cfg, n: cfg.optim.max_iter is not None,
        "the training lasts optim.max_iter iterations",
    ),
    Unused(
        ("train.OFFICIAL_EPOCH_LENGTH",),
        _counts_no_epochs,
        "optim.max_iter says how long the training is, and no other setting counts in epochs",
    ),
    Unused(
        ("ibot.separate_head", "ibot.head_*", "compute_precision.*.ibot_head.*"),
        lambda cfg, n: cfg.ibot.loss_weight == 0,
        "ibot.loss_weight=0 leaves the patch loss out, and its head",
    ),
    Unused(
        ("ibot.head_*", "compute_precision.*.ibot_head.*"),
        lambda cfg, n: not cfg.ibot.separate_head,
        "patches go through the DINO head, as dino.head_* and compute_precision.*.dino_head describe it; "
        "ibot.separate_head=true gives them one of their own",
    ),
    Unused(
        ("ibot.mask_ratio_min_max",),
        lambda cfg, n: cfg.ibot.mask_sample_probability == 0,
        "ibot.mask_sample_probability=0 masks no crop",
    ),
    Unused(
        ("dino.uniformity", "dino.kde_concentration"),
        lambda cfg, n: cfg.dino.koleo_loss_weight == 0,
        "dino.koleo_loss_weight=0 leaves the loss out that spreads class tokens",
    ),
    Unused(
        ("dino.kde_concentration",),
        lambda cfg, n: cfg.dino.uniformity != "kde",
        "dino.uniformity=koleo has no kernel; kde has one",
    ),
    Unused(
        ("compute_precision.*.sharding_strategy", "compute_precision.*.reduce_dtype"),
        lambda cfg, n: n == 1,
        "a single process holds everything and averages nothing",
    ),
    Unused(
        ("compute_precision.grad_scaler",),
        lambda cfg, n: all(
            cfg.compute_precision.student[part].mixed_precision.param_dtype in ("fp32", "bf16") for part in PARTS
        ),
        "no module of the student computes in fp16, so no loss is scaled",
    ),
    Unused(("train.keep_every",), lambda cfg, n: cfg.train.keep_last == 0, "train.keep_last=0 keeps all checkpoints"),
    Unused(
        ("train.max_nonfinite_steps",),
        lambda cfg, n: cfg.train.on_nonfinite == "stop",
        "train.on_nonfinite=stop ends at the first such step",
    ),
    Unused(
        ("student.drop_path_uniform",),
        lambda cfg, n: cfg.student.drop_path_rate == 0,
        "student.drop_path_rate=0 drops nothing",
    ),
    Unused(
        ("student.ffn_bias",),
        lambda cfg, n: cfg.student.ffn_layer == "identity",
        "student.ffn_layer=identity has no weights",
    ),
    Unused(
        ("student.pretrained_*", "head.load"),
        lambda cfg, n: bool(cfg.MODEL.WEIGHTS),
        "all networks start from the checkpoint MODEL.WEIGHTS",
    ),
    Unused(
        ("student.pretrained_*",),
        lambda cfg, n: bool(cfg.head.head_path) and "backbone" in cfg.head.load,
        "backbones start from the export head.head_path; head.load says what is taken from it",
    ),
    Unused(
        ("student.pretrained_network", "student.pretrained_positions", "student.pretrained_allow"),
        lambda cfg, n: not cfg.student.pretrained_weights,
        "no student.pretrained_weights are loaded",
    ),
    Unused(
        ("head.load", "head.start_iteration"),
        lambda cfg, n: not cfg.head.head_path,
        "no export is loaded; head.head_path names one",
    ),
    Unused(
        ("teacher.warmup_teacher_temp",),
        lambda cfg, n: _lasts_nothing(cfg.teacher, "warmup_teacher_temp"),
        "the warm-up takes no iterations (teacher.warmup_teacher_temp_epochs or _pct): teacher.teacher_temp holds",
    ),
    Unused(
        ("optim.freeze_last_layer_*",), _heads_frozen, "optim.frozen has the heads, so their last layers never learn"
    ),
    Unused(
        ("optim.freeze_backbone_iterations", "optim.patch_embed_lr_mult", "optim.layerwise_decay"),
        lambda cfg, n: "backbone" in cfg.optim.frozen,
        "optim.frozen has the backbone, which never learns",
    ),
    Unused(
        ("crops.local_crops_size", "crops.local_crops_scale", "augmentation.blur_local"),
        lambda cfg, n: cfg.crops.local_crops_number == 0,
        "crops.local_crops_number=0 makes global crops alone",
    ),
    Unused(
        ("augmentation.brightness", "augmentation.contrast", "augmentation.saturation", "augmentation.hue"),
        lambda cfg, n: cfg.augmentation.color_jitter == 0,
        "augmentation.color_jitter=0 changes no colours",
    ),
    Unused(
        ("data.max_bad_share",),
        lambda cfg, n: cfg.data.on_bad_tile == "raise",
        "data.on_bad_tile=raise stops at the first bad tile",
    ),
    Unused(
        ("data.draw_weights",),
        lambda cfg, n: cfg.data.draw_by == "tile",
        "data.draw_by=tile takes each tile once an epoch; slide, cohort or dataset draw groups by weight",
    ),
    Unused(
        ("tune.*", "train.evaluation_timeout"),
        lambda cfg, n: not evaluates(cfg.tune),
        "nothing is evaluated: that needs tune.query_dataset_path and tune.test_dataset_path, or tune.datasets",
    ),
    Unused(
        ("tune.knn.nb_knn", "tune.knn.temperature", "tune.knn.n_per_class_list", "tune.knn.n_tries"),
        lambda cfg, n: "knn" not in cfg.tune.probes,
        "tune.probes has no knn",
    ),
    Unused(
        ("tune.knn.n_tries",),
        lambda cfg, n: set(cfg.tune.knn.n_per_class_list) == {-1},
        "tune.knn.n_per_class_list=[-1] draws no tiles, all of them vote",
    ),
    Unused(("tune.linear.*",), lambda cfg, n: "linear" not in cfg.tune.probes, "tune.probes has no linear"),
    Unused(
        ("tune.early_stopping.patience_pct", "tune.early_stopping.min_epoch_pct"),
        lambda cfg, n: not cfg.tune.early_stopping.enable,
        "tune.early_stopping.enable=false stops no training early",
    ),
    Unused(
        ("tune.early_stopping.*",),
        lambda cfg, n: not (cfg.tune.early_stopping.enable or cfg.tune.keep_best),
        "no score is tracked: neither tune.early_stopping.enable nor tune.keep_best is true",
    ),
    Unused(("wandb.*",), lambda cfg, n: not cfg.wandb.enable, "wandb.enable=false writes nothing to Weights & Biases"),
)
