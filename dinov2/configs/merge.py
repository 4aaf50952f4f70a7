"""Merging the defaults, a configuration file and `key=value` arguments into one checked configuration."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dinov2.errors import UserError

from .schema import Config

DEFAULT_FILE = Path(__file__).parent / "ssl_default_config.yaml"

# Two spellings of one setting: a layer that gives one of them clears the other of the layers below.
ALTERNATIVES = (
    ("optim.warmup_epochs", "optim.warmup_pct"),
    ("optim.freeze_last_layer_epochs", "optim.freeze_last_layer_pct"),
    ("teacher.warmup_teacher_temp_epochs", "teacher.warmup_teacher_temp_pct"),
    ("tune.tune_every_iterations", "tune.tune_every_pct"),
)

# Keys whose value may be a mapping with names of the user's own.
OPEN = ("data.draw_weights", "tune.datasets")

RETIRED = {
    "tune.tune_every": "tune.tune_every_pct (epochs between evaluations)",
    "tune.early_stopping.patience": "tune.early_stopping.patience_pct (share of the training)",
    "tune.early_stopping.min_epoch": "tune.early_stopping.min_epoch_pct (share of the training)",
    "train.save_every": "train.save_frequency (epochs between checkpoints)",
}


def load_config_file(path: str | Path) -> DictConfig:
    """Read a YAML file.

    Raises:
        UserError: if it is missing, is not YAML or is no mapping.
    """
    path = Path(path)
    if not path.is_file():
        nearby = sorted(str(p.with_suffix("").relative_to(DEFAULT_FILE.parent)) for p in _packaged_files())
        raise UserError(f"configuration file {path} does not exist. The packaged ones are: {', '.join(nearby)}")
    try:
        config = OmegaConf.load(path)
    except Exception as error:
        raise UserError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} holds a list, expected keys and values such as `train:`")
    return config


def parse_overrides(arguments: Sequence[str]) -> DictConfig:
    """`key=value` arguments as a layer.

    Raises:
        UserError: for an argument without "=".
    """
    for argument in arguments:
        if "=" not in argument or argument.startswith("-"):
            raise UserError(f"argument {argument!r} is not understood: expected key=value, such as optim.epochs=10")
    try:
        return OmegaConf.from_dotlist(list(arguments))
    except Exception as error:
        raise UserError(f"arguments {' '.join(arguments)!r} cannot be read: {error}") from error


def complete_config(layer: Mapping[str, Any] | DictConfig) -> DictConfig:
    """The defaults with one layer of settings on top; a complete configuration stays what it is."""
    return merge_layers([("the configuration", layer)])


def merge_layers(layers: Sequence[tuple[str, Mapping[str, Any] | DictConfig]]) -> DictConfig:
    """Put layers of settings on the defaults, later ones winning.

    Args:
        layers: (where it comes from, settings), the first the lowest.
    Raises:
        UserError: for an unknown key, a value of the wrong type, or both spellings of one setting.
    """
    merged = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(DEFAULT_FILE))
    known, sections = set(leaf_keys(merged)), set(_section_keys(merged))
    for source, layer in layers:
        layer = layer if isinstance(layer, DictConfig) else OmegaConf.create(dict(layer))
        keys = set(leaf_keys(layer))
        _check_keys(source, keys, known, sections)
        _clear_alternatives(source, merged, layer)
        try:
            merged = OmegaConf.merge(merged, layer)
        except OmegaConfBaseException as error:
            text = str(error).splitlines()[0]
            if "is not a ListConfig" in text:
                text = f"expected a list: write {error.full_key}=[...]"
            raise UserError(f"{source}: {error.full_key}: {text}") from error
    try:
        OmegaConf.resolve(merged)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {str(error).splitlines()[0]}") from error
    assert isinstance(merged, DictConfig)
    return merged


def _packaged_files() -> Iterator[Path]:
    return DEFAULT_FILE.parent.rglob("*.yaml")


def leaf_keys(config: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all values; a list is one value."""
    for key in config:
        name = f"{prefix}{key}"
        if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key):
            yield name
        elif isinstance(config[key], DictConfig) and name not in OPEN:
            yield from leaf_keys(config[key], f"{name}.")
        else:
            yield name


def _section_keys(config: Any) -> Iterator[str]:
    for leaf in leaf_keys(config):
        parts = leaf.split(".")
        yield from (".".join(parts[:i]) for i in range(1, len(parts)))


def _check_keys(source: str, keys: set[str], known: set[str], sections: set[str]) -> None:
    for key in sorted(keys - known):
        if key in sections:
            raise UserError(f"{source}: {key} is a section; expected keys below it, such as {key}.{_first(key, known)}")
        if key in RETIRED:
            raise UserError(f"{source}: {key} is gone; its place is {RETIRED[key]}")
        raise UserError(f"{source}: unknown key {key}; {_nearest_keys(key, known)}")


def _first(section: str, known: set[str]) -> str:
    return min(name for name in known if name.startswith(f"{section}.")).removeprefix(f"{section}.")


def _nearest_keys(key: str, known: set[str]) -> str:
    """The known keys that look most like this one, by whole name or by its last part."""
    last = key.rsplit(".", 1)[-1]
    same_last = [name for name in sorted(known) if name.rsplit(".", 1)[-1] == last]
    by_last = difflib.get_close_matches(last, [name.rsplit(".", 1)[-1] for name in known], n=1, cutoff=0.7)
    close_last = [name for name in sorted(known) if by_last and name.rsplit(".", 1)[-1] == by_last[0]]
    close = difflib.get_close_matches(key, sorted(known), n=3, cutoff=0.6)
    nearest = list(dict.fromkeys([*same_last, *close, *close_last]))[:3]
    if nearest:
        return f"did you mean {' or '.join(nearest)}?"
    return "all keys are listed in dinov2/configs/ssl_default_config.yaml"


def _clear_alternatives(source: str, merged: Any, layer: DictConfig) -> None:
    for pair in ALTERNATIVES:
        given = [key for key in pair if OmegaConf.select(layer, key) is not None]
        if len(given) == 2:
            raise UserError(f"{source}: {pair[0]} and {pair[1]} say the same thing in two ways; keep one")
        for key in given:
            other = pair[1] if key == pair[0] else pair[0]
            OmegaConf.update(merged, other, None)
