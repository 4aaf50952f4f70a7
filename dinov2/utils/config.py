"""From command-line arguments to a checked configuration, a run folder and seeded random numbers.

Nothing slow is imported before the configuration is checked.
"""

import argparse
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dinov2.configs import leaf_keys, load_config_file, merge_layers, parse_overrides, validate_config
from dinov2.errors import Mistakes, UserError

from .atomic import write_text
from .dataset_strings import absolute_dataset_string, datasets_of_inputs
from .outputs import try_folder

PATHS = ("MODEL.WEIGHTS", "head.head_path", "distillation.config_file", "distillation.weights", "wandb.dir")

logger = logging.getLogger("dinov2")


def get_cfg_from_args(args: argparse.Namespace, *, checks: Sequence[Callable[[DictConfig], None]] = ()) -> DictConfig:
    """Merge defaults, configuration file and `key=value` arguments, and check the result.

    Args:
        checks: of what settings name, which raise a UserError.
    Raises:
        UserError: with everything in them that is not right.
    """
    for given in (*args.opts, args.output_dir, *(getattr(args, "input_dir", None) or ())):
        _refuse_bytes(given)
    mistakes = Mistakes()
    layers = [(args.config_file, load_config_file(args.config_file))] if args.config_file else []
    overrides = parse_overrides(args.opts, mistakes)
    if OmegaConf.select(overrides, "train.output_dir"):
        mistakes.add("train.output_dir is set by --output-dir")
    if getattr(args, "input_dir", None) and OmegaConf.select(overrides, "train.dataset_path"):
        mistakes.add("--input-dir and train.dataset_path both name the tiles to train on; give one of them")
    layers.append(("the command line", overrides))
    layers.append(("the command line", _options_as_layer(args)))
    cfg = merge_layers(layers, mistakes)
    validate_config(cfg, mistakes)
    for check in checks:
        with mistakes.collecting():
            check(cfg)
    mistakes.refuse()
    for key, value in absolute_paths({key: OmegaConf.select(cfg, key) for key in leaf_keys(cfg)}).items():
        OmegaConf.update(cfg, key, value)
    return cfg


def _refuse_bytes(given: str) -> None:
    if any("\udc80" <= letter <= "\udcff" for letter in given):
        shown = os.fsencode(given).decode("utf-8", "backslashreplace")
        raise UserError(
            f"{shown} has bytes that are not UTF-8, as names from older systems have, and no configuration file can "
            "hold them. Rename it; convmv -f latin1 -t utf-8 -r does so for a whole tree"
        )


def absolute_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings by dotted names, those that are paths absolute, so that they hold wherever a run goes on from."""
    return {key: _absolute(key, value) for key, value in settings.items()}


def _absolute(key: str, value: Any) -> Any:
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_absolute(key, one) for one in value]
    if isinstance(value, Mapping):
        return {name: _absolute(f"{key}.{name}", one) for name, one in value.items()}
    if not isinstance(value, str) or not value:
        return value
    if key.endswith("dataset_path") or key.startswith("tune.datasets."):
        return absolute_dataset_string(value)
    is_path = key in PATHS or (key == "student.pretrained_weights" and Path(value).exists())
    return str(Path(value).absolute()) if is_path else value


def _options_as_layer(args: argparse.Namespace) -> DictConfig:
    layer: dict[str, object] = {"train.output_dir": str(Path(args.output_dir).resolve())}
    if getattr(args, "input_dir", None):
        layer["train.dataset_path"] = datasets_of_inputs(args.input_dir)
    if getattr(args, "pretrained_weights", None):
        layer["student.pretrained_weights"] = args.pretrained_weights
    config = OmegaConf.create({})
    for key, value in layer.items():
        OmegaConf.update(config, key, value)
    return config


def setup(args: argparse.Namespace, *, checks: Sequence[Callable[[DictConfig], None]] = ()) -> DictConfig:
    """Check the configuration, join the other processes, prepare the run folder, log and seed.

    Args:
        checks: see `get_cfg_from_args`.
    """
    cfg = get_cfg_from_args(args, checks=checks)
    join(cfg)
    return cfg


def join(cfg: DictConfig, *, timeout: timedelta = timedelta(minutes=30)) -> None:
    """Join the other processes within some time, prepare the run folder, log and seed."""
    import torch

    from dinov2 import distributed
    from dinov2.distributed.outcomes import on_main
    from dinov2.logging import setup_logging

    from .rng import seed_everything, use_deterministic_kernels

    use_deterministic_kernels(cfg.train.deterministic)
    distributed.enable(overwrite=True, timeout=timeout)
    torch.backends.cuda.matmul.allow_tf32 = True
    on_main(lambda: try_folder(Path(cfg.train.output_dir)))
    setup_logging(cfg.train.output_dir)
    seed_everything(cfg.train.seed)
    logger.info(
        f"{distributed.get_global_size()} process(es), device {distributed.get_device()}, torch {torch.__version__}"
    )


def write_config(cfg: DictConfig) -> None:
    """Write `config.yaml` into the run folder (main process only)."""
    from dinov2.distributed import is_main_process

    if is_main_process():
        write_text(Path(cfg.train.output_dir, "config.yaml"), OmegaConf.to_yaml(cfg))
