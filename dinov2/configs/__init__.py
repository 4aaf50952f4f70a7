"""Configurations: packaged files, the closed schema, and how layers of settings are merged."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .merge import complete_config, leaf_keys, merge_layers
from .reading import load_config_file, parse_overrides
from .validate import validate_config

if TYPE_CHECKING:
    from omegaconf import DictConfig

    dinov2_default_config: DictConfig

CONFIG_ROOT = Path(__file__).parent

__all__ = [
    "CONFIG_ROOT",
    "complete_config",
    "dinov2_default_config",
    "leaf_keys",
    "load_and_merge_config",
    "load_config",
    "load_config_file",
    "merge_layers",
    "parse_overrides",
    "validate_config",
]


def __getattr__(name: str) -> Any:
    """`dinov2_default_config`, read when first asked for: importing this package opens no file."""
    if name == "dinov2_default_config":
        return load_config("ssl_default_config")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_config(config_name: str) -> "DictConfig":
    """A packaged file as it is, by its path without suffix, such as "train/vitl16_short"."""
    return load_config_file(CONFIG_ROOT / f"{config_name}.yaml")


def load_and_merge_config(config_name: str) -> "DictConfig":
    """A packaged file on top of the defaults."""
    return complete_config(load_config(config_name))
