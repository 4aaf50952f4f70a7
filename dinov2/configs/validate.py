"""What a configuration must satisfy beyond types, checked in the first second of a run."""

from collections.abc import Callable, Iterator

from omegaconf import DictConfig, OmegaConf

from dinov2.errors import Mistakes, unknown_name

from .reading import DEFAULT_FILE
from .schema import rows
from .validate_tune import check_tuning, evaluates


def validate_config(cfg: DictConfig, mistakes: Mistakes | None = None) -> None:
    """Check values and their combinations.

    Args:
        mistakes: takes what is found.
    Raises:
        UserError: with all mistakes, if none are taken: the key, the value, and what would be right.
    """
    found = mistakes or Mistakes()
    wrong = dict(_check_values(cfg))
    if wrong:  # what they make together with others is judged by their defaults
        defaults, cfg = OmegaConf.load(DEFAULT_FILE), cfg.copy()
        for key, mistake in wrong.items():
            found.add(mistake)
            OmegaConf.update(cfg, key, OmegaConf.select(defaults, key), merge=False)
    checks: tuple[Callable[[DictConfig], Iterator[str]], ...] = (
        _check_data,
        _check_sharding,
        _check_crops,
        _check_losses,
        _check_optimiser,
        check_tuning,
    )
    for check in checks:
        for mistake in check(cfg):
            found.add(mistake)
    if mistakes is None:
        found.refuse()


def _check_values(cfg: DictConfig) -> Iterator[tuple[str, str]]:
    """Keys whose value is not in the range, or not one of the names, of the schema, and what is wrong with them."""
    for row in rows():
        value = OmegaConf.select(cfg, row.key)
        for one in value if OmegaConf.is_list(value) else [value]:
            if row.range and one is not None and not row.range[0] <= one <= row.range[1]:
                yield row.key, f"{row.key}={value}: expected {in_words(*row.range, one)}"
            if row.names and one not in row.names:
                yield row.key, str(unknown_name(row.key, one, row.names))


def in_words(least: float, most: float, found: float) -> str:
    """What was expected instead of a number that is not in a range."""
    if found < least:
        return f"at least {least:g}"
    return f"a number from {least:g} to {most:,}"


def _check_data(cfg: DictConfig) -> Iterator[str]:
    paths = cfg.train.dataset_path
    strings = list(paths) if OmegaConf.is_list(paths) else [paths]
    if not strings or not all(isinstance(path, str) and path for path in strings):
        yield (
            f"train.dataset_path={paths}: expected a data set string, or a list of them; one that contains "
            '": ", a comma or a bracket goes into quotes, for YAML reads it as something else'
        )


def _check_sharding(cfg: DictConfig) -> Iterator[str]:
    for name, student in cfg.compute_precision.student.items():
        teacher = cfg.compute_precision.teacher[name]
        if (student.sharding_strategy == "NO_SHARD") != (teacher.sharding_strategy == "NO_SHARD"):
            yield (
                f"compute_precision.*.{name}.sharding_strategy is {student.sharding_strategy} for the student and "
                f"{teacher.sharding_strategy} for the teacher: a sharded module has no moving average of a replicated "
                "one. Set NO_SHARD for both, or SHARD_GRAD_OP or FULL_SHARD for each"
            )


def _check_crops(cfg: DictConfig) -> Iterator[str]:
    patch = cfg.student.patch_size
    sizes = {"crops.global_crops_size": cfg.crops.global_crops_size}
    if cfg.crops.local_crops_number > 0:
        sizes["crops.local_crops_size"] = cfg.crops.local_crops_size
    if evaluates(cfg.tune):
        sizes["tune.crop_size"] = cfg.tune.crop_size
    for key, size in sizes.items():
        if size % patch:
            below, above = size // patch * patch, (size // patch + 1) * patch
            yield (
                f"{key}={size} is not a multiple of student.patch_size={patch}; "
                f"the nearest that are: {' and '.join(str(s) for s in (below, above) if s > 0)}"
            )
    for key in ("global_crops_scale", "local_crops_scale"):
        scale = list(cfg.crops[key])
        if len(scale) != 2 or not 0 < scale[0] <= scale[1] <= 1:
            yield (f"crops.{key}={scale}: expected two shares of the image's area, 0 < smallest <= largest <= 1")


def _check_losses(cfg: DictConfig) -> Iterator[str]:
    if cfg.dino.loss_weight <= 0:
        yield (
            f"dino.loss_weight={cfg.dino.loss_weight}: the DINO loss carries the training and its weight "
            "must be positive; to leave the patch loss out, set ibot.loss_weight=0"
        )
    if "ibot_head" in cfg.optim.frozen and not cfg.ibot.separate_head:
        yield "optim.frozen has ibot_head, which only a model with ibot.separate_head=true has; take it out"
    if bool(cfg.distillation.config_file) != bool(cfg.distillation.weights):
        yield (
            f"distillation.config_file={cfg.distillation.config_file!r} and distillation.weights="
            f"{cfg.distillation.weights!r}: distillation needs both, the configuration of the teacher and its weights"
        )
    if {"backbone", "dino_head"} <= set(cfg.optim.frozen):
        yield f"optim.frozen={list(cfg.optim.frozen)} leaves nothing to learn; take one of them out"
    ratios = list(cfg.ibot.mask_ratio_min_max)
    if len(ratios) != 2 or not 0 < ratios[0] <= ratios[1] <= 1:
        yield f"ibot.mask_ratio_min_max={ratios}: expected two shares, 0 < smallest <= largest <= 1"
        return
    patches = (cfg.crops.global_crops_size // cfg.student.patch_size) ** 2
    if cfg.ibot.loss_weight > 0 and int(ratios[1] * patches) < 1:
        yield f"ibot.mask_ratio_min_max={ratios} masks no patch of the {patches} that a global crop has"
    batch, probability = cfg.train.batch_size_per_gpu, cfg.ibot.mask_sample_probability
    if cfg.ibot.loss_weight > 0 and int(2 * batch * probability) < 1:
        yield (
            f"with train.batch_size_per_gpu={batch} and ibot.mask_sample_probability={probability} no crop is "
            "ever masked and the patch loss has nothing to do; raise one of them or set ibot.loss_weight=0"
        )


def _check_optimiser(cfg: DictConfig) -> Iterator[str]:
    if cfg.optim.epochs <= 0:
        yield f"optim.epochs={cfg.optim.epochs}: expected more than 0"
    if cfg.optim.scaling_rule == "none" and cfg.optim.lr == 0:
        yield "optim.scaling_rule=none takes the learning rate from optim.lr, which is 0; set it"
    for name in ("mean", "std"):
        values = list(cfg.augmentation[name])
        if len(values) != 3 or (name == "std" and min(values) <= 0):
            yield f"augmentation.{name}={values}: expected three numbers, for red, green and blue"
