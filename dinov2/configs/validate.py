"""What a configuration must satisfy beyond types, checked in the first second of a run."""

from collections.abc import Callable

from omegaconf import DictConfig, OmegaConf

from dinov2.errors import UserError, unknown_name

from .validate_tune import check_tuning, evaluates

CENTERINGS = ("centering", "sinkhorn_knopp")
DTYPES = ("auto", "fp32", "fp16", "bf16")
SHARDING_STRATEGIES = ("NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD")
SCALING_RULES = ("sqrt_wrt_1024", "linear_wrt_256", "none")
PARTS = ("backbone", "dino_head", "ibot_head")  # of student and teacher


def validate_config(cfg: DictConfig) -> None:
    """Check values and their combinations.

    Raises:
        UserError: names the key, the value, and what would be right.
    """
    checks: tuple[Callable[[DictConfig], None], ...] = (
        _check_names,
        _check_data,
        _check_precision,
        _check_sharding,
        _check_ranges,
        _check_crops,
        _check_losses,
    )
    for check in checks:
        check(cfg)
    check_tuning(cfg.tune)


def _check_names(cfg: DictConfig) -> None:
    for key, value, known in (
        ("train.centering", cfg.train.centering, CENTERINGS),
        ("dino.uniformity", cfg.dino.uniformity, ("koleo", "kde")),
        ("optim.scaling_rule", cfg.optim.scaling_rule, SCALING_RULES),
        ("tune.early_stopping.min_max", cfg.tune.early_stopping.min_max, ("min", "max")),
        ("train.on_save_error", cfg.train.on_save_error, ("continue", "stop")),
        ("train.on_nonfinite", cfg.train.on_nonfinite, ("stop", "skip")),
        ("data.on_bad_tile", cfg.data.on_bad_tile, ("replace", "raise")),
        ("data.draw_by", cfg.data.draw_by, ("tile", "slide", "cohort", "dataset")),
        ("student.attention_backend", cfg.student.attention_backend, ("sdpa", "xformers")),
    ):
        if value not in known:
            raise unknown_name(key, value, known)
    for key, values in (("optim.frozen", cfg.optim.frozen), ("head.load", cfg.head.load)):
        for value in values:
            if value not in PARTS:
                raise unknown_name(key, value, PARTS)


def _check_data(cfg: DictConfig) -> None:
    paths = cfg.train.dataset_path
    strings = list(paths) if OmegaConf.is_list(paths) else [paths]
    if not strings or not all(isinstance(path, str) and path for path in strings):
        raise UserError(
            f"train.dataset_path={paths}: expected a data set string, or a list of them; one that contains "
            '": ", a comma or a bracket goes into quotes, for YAML reads it as something else'
        )


def _check_precision(cfg: DictConfig) -> None:
    for network in ("teacher", "student"):
        for name, module in cfg.compute_precision[network].items():
            key = f"compute_precision.{network}.{name}"
            if module.sharding_strategy not in SHARDING_STRATEGIES:
                raise unknown_name(f"{key}.sharding_strategy", module.sharding_strategy, SHARDING_STRATEGIES)
            for kind, dtype in module.mixed_precision.items():
                if dtype not in DTYPES:
                    raise unknown_name(f"{key}.mixed_precision.{kind}", dtype, DTYPES)


def _check_sharding(cfg: DictConfig) -> None:
    for name, student in cfg.compute_precision.student.items():
        teacher = cfg.compute_precision.teacher[name]
        if (student.sharding_strategy == "NO_SHARD") != (teacher.sharding_strategy == "NO_SHARD"):
            raise UserError(
                f"compute_precision.*.{name}.sharding_strategy is {student.sharding_strategy} for the student and "
                f"{teacher.sharding_strategy} for the teacher: a sharded module has no moving average of a replicated "
                "one. Set NO_SHARD for both, or SHARD_GRAD_OP or FULL_SHARD for each"
            )


def _check_crops(cfg: DictConfig) -> None:
    patch = cfg.student.patch_size
    sizes = {"crops.global_crops_size": cfg.crops.global_crops_size}
    if cfg.crops.local_crops_number > 0:
        sizes["crops.local_crops_size"] = cfg.crops.local_crops_size
    if evaluates(cfg.tune):
        sizes["tune.crop_size"] = cfg.tune.crop_size
    for key, size in sizes.items():
        if patch < 1 or size < patch or size % patch:
            below, above = size // max(patch, 1) * patch, (size // max(patch, 1) + 1) * patch
            raise UserError(
                f"{key}={size} is not a multiple of student.patch_size={patch}; "
                f"the nearest that are: {' and '.join(str(s) for s in (below, above) if s > 0)}"
            )
    for key in ("global_crops_scale", "local_crops_scale"):
        scale = list(cfg.crops[key])
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            raise UserError(
                f"crops.{key}={scale}: expected two shares of the image's area, 0 < smallest <= largest <= 1"
            )


def _check_losses(cfg: DictConfig) -> None:
    if cfg.dino.loss_weight <= 0:
        raise UserError(
            f"dino.loss_weight={cfg.dino.loss_weight}: the DINO loss carries the training and its weight "
            "must be positive; to leave the patch loss out, set ibot.loss_weight=0"
        )
    if "ibot_head" in cfg.optim.frozen and not cfg.ibot.separate_head:
        raise UserError("optim.frozen has ibot_head, which only a model with ibot.separate_head=true has; take it out")
    if bool(cfg.distillation.config_file) != bool(cfg.distillation.weights):
        raise UserError(
            f"distillation.config_file={cfg.distillation.config_file!r} and distillation.weights="
            f"{cfg.distillation.weights!r}: distillation needs both, the configuration of the teacher and its weights"
        )
    if {"backbone", "dino_head"} <= set(cfg.optim.frozen):
        raise UserError(f"optim.frozen={list(cfg.optim.frozen)} leaves nothing to learn; take one of them out")
    ratios = list(cfg.ibot.mask_ratio_min_max)
    if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1] <= 1:
        raise UserError(f"ibot.mask_ratio_min_max={ratios}: expected two shares, 0 < smallest <= largest <= 1")
    patches = (cfg.crops.global_crops_size // cfg.student.patch_size) ** 2
    if cfg.ibot.loss_weight > 0 and int(ratios[1] * patches) < 1:
        raise UserError(f"ibot.mask_ratio_min_max={ratios} masks no patch of the {patches} that a global crop has")
    batch, probability = cfg.train.batch_size_per_gpu, cfg.ibot.mask_sample_probability
    if cfg.ibot.loss_weight > 0 and int(2 * batch * probability) < 1:
        raise UserError(
            f"with train.batch_size_per_gpu={batch} and ibot.mask_sample_probability={probability} no crop is "
            "ever masked and the patch loss has nothing to do; raise one of them or set ibot.loss_weight=0"
        )


# Smallest and largest value that can work, by key; None where there is no largest.
RANGES: dict[str, tuple[float, float | None]] = {
    "train.batch_size_per_gpu": (1, None),
    "train.gradient_accumulation_factor": (1, None),
    "train.num_workers": (0, None),
    "train.step_timeout": (0, None),
    "train.data_timeout": (0, None),
    "train.evaluation_timeout": (0, None),
    "train.save_timeout": (0, None),
    "train.OFFICIAL_EPOCH_LENGTH": (1, None),
    "train.save_frequency": (0, None),
    "train.keep_last": (0, None),
    "train.keep_every": (1, None),
    "train.max_nonfinite_steps": (1, None),
    "train.indicators_every": (0, None),
    "dino.head_n_prototypes": (1, None),
    "dino.head_hidden_dim": (1, None),
    "dino.head_bottleneck_dim": (1, None),
    "dino.koleo_loss_weight": (0, None),
    "dino.kde_concentration": (1e-3, None),
    "ibot.head_n_prototypes": (1, None),
    "ibot.head_hidden_dim": (1, None),
    "ibot.head_bottleneck_dim": (1, None),
    "ibot.loss_weight": (0, None),
    "ibot.mask_sample_probability": (0, 1),
    "student.drop_path_rate": (0, 0.999),
    "student.block_chunks": (0, None),
    "student.num_register_tokens": (0, None),
    "teacher.momentum_teacher": (0, 1),
    "teacher.final_momentum_teacher": (0, 1),
    "teacher.warmup_teacher_temp": (1e-4, None),
    "teacher.teacher_temp": (1e-4, None),
    "teacher.warmup_teacher_temp_epochs": (0, None),
    "teacher.warmup_teacher_temp_pct": (0, 1),
    "optim.max_iter": (1, None),
    "optim.base_lr": (0, None),
    "optim.lr": (0, None),
    "optim.min_lr": (0, None),
    "optim.clip_grad": (0, None),
    "optim.weight_decay": (0, None),
    "optim.weight_decay_end": (0, None),
    "optim.warmup_epochs": (0, None),
    "optim.warmup_pct": (0, 1),
    "optim.freeze_last_layer_epochs": (0, None),
    "optim.freeze_last_layer_pct": (0, 1),
    "optim.freeze_backbone_iterations": (0, None),
    "head.start_iteration": (0, None),
    "optim.adamw_beta1": (0, 0.99999),
    "optim.adamw_beta2": (0, 0.999999),
    "crops.local_crops_number": (0, None),
    "data.max_bad_share": (0, 1),
    "data.max_pixels": (1, 178_956_970),  # twice Image.MAX_IMAGE_PIXELS, which Pillow takes for an attack
    "augmentation.horizontal_flip": (0, 1),
    "augmentation.vertical_flip": (0, 1),
    "augmentation.color_jitter": (0, 1),
    "augmentation.grayscale": (0, 1),
    "augmentation.solarize_global_2": (0, 1),
    "augmentation.blur_global_1": (0, 1),
    "augmentation.blur_global_2": (0, 1),
    "augmentation.blur_local": (0, 1),
    "augmentation.brightness": (0, None),
    "augmentation.contrast": (0, None),
    "augmentation.saturation": (0, None),
    "augmentation.hue": (0, 0.5),
    "evaluation.eval_period_iterations": (0, None),
    "tune.tune_every_pct": (0, None),
    "tune.tune_every_iterations": (0, None),
    "tune.knn.batch_size": (1, None),
    "tune.knn.temperature": (1e-4, None),
    "tune.knn.n_tries": (1, None),
    "tune.linear.batch_size": (1, None),
    "tune.linear.iterations": (1, None),
    "tune.resamples": (0, None),
    "tune.early_stopping.patience_pct": (0, 1),
    "tune.early_stopping.min_epoch_pct": (0, 1),
}


def _check_ranges(cfg: DictConfig) -> None:
    for key, (least, most) in RANGES.items():
        value = OmegaConf.select(cfg, key)
        if value is not None and not least <= value <= (float("inf") if most is None else most):
            expected = f"at least {least:g}" if most is None else f"from {least:g} to {most:g}"
            raise UserError(f"{key}={value}: expected {expected}")
    if cfg.optim.epochs <= 0:
        raise UserError(f"optim.epochs={cfg.optim.epochs}: expected more than 0")
    if cfg.optim.scaling_rule == "none" and cfg.optim.lr == 0:
        raise UserError("optim.scaling_rule=none takes the learning rate from optim.lr, which is 0; set it")
    for name in ("mean", "std"):
        values = list(cfg.augmentation[name])
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            raise UserError(f"augmentation.{name}={values}: expected three numbers, for red, green and blue")
