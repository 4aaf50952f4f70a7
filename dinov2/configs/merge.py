"""Merging the defaults and layers of settings, of a file and of `key=value` arguments, into one configuration."""

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from dinov2.errors import Mistakes

from .reading import DEFAULT_FILE, at
from .schema import Config, rows

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


def complete_config(layer: Mapping[str, Any] | DictConfig) -> DictConfig:
    """The defaults with one layer of settings on top; a complete configuration stays what it is."""
    return merge_layers([("the configuration", layer)])


def merge_layers(
    layers: Sequence[tuple[str, Mapping[str, Any] | DictConfig]], mistakes: Mistakes | None = None
) -> DictConfig:
    """Put layers of settings on the defaults, later ones winning.

    Args:
        layers: (where it comes from, settings), the first the lowest.
        mistakes: takes unknown keys, values of the wrong type and both spellings of one setting, which are left out.
    Raises:
        UserError: with all mistakes, if none are taken.
    """
    found = mistakes or Mistakes()
    merged: Any = OmegaConf.merge(OmegaConf.structured(Config), OmegaConf.load(DEFAULT_FILE))
    known, sections = set(leaf_keys(merged)), set(_section_keys(merged))
    for source, layer in layers:
        layer = layer if isinstance(layer, DictConfig) else OmegaConf.create(dict(layer))
        given = set(leaf_keys(layer))
        for mistake in _unknown_keys(given, known, sections):
            found.add(f"{source}: {mistake}")
        settings: Any = OmegaConf.create(_only_known(OmegaConf.to_container(layer, resolve=False), known))
        for key in sorted((given & known) - set(leaf_keys(settings))):
            found.add(f"{source}: {key} is one word, expected {key.replace('.', ': {')}: ...{'}' * key.count('.')}")
        _clear_alternatives(source, merged, settings, found)
        merged = merge_typed(source, merged, settings, found)
    resolve_settings(merged, OmegaConf.load(DEFAULT_FILE), found)
    if mistakes is None:
        found.refuse()
    return merged


def resolve_settings(merged: Any, defaults: Any, mistakes: Mistakes) -> None:
    """Fill in what other settings say; a setting for which that does not work keeps its default."""
    for key in list(leaf_keys(merged)):
        try:
            value = OmegaConf.select(merged, key)
            if OmegaConf.is_config(value):
                OmegaConf.resolve(value)
        except OmegaConfBaseException as error:
            mistakes.add(
                f"{key}: {str(error).splitlines()[0]}. ${{section.key}} stands for the value of another setting, "
                "and for no variable of the shell"
            )
            OmegaConf.update(merged, key, OmegaConf.select(defaults, key), merge=False)
    OmegaConf.resolve(merged)


def merge_typed(source: str, merged: Any, settings: DictConfig, mistakes: Mistakes) -> Any:
    """All settings that have the right type on top of others of the same schema."""
    try:
        return OmegaConf.merge(merged, settings)
    except (OmegaConfBaseException, TypeError):  # the latter for a list where there are names
        schema: Any = OmegaConf.get_type(merged)
        kinds = {row.key: row.kind for row in rows(schema)}
    plain = OmegaConf.to_container(settings, resolve=False)
    for key in [key for key in kinds if key in set(leaf_keys(settings))]:
        value = at(plain, key)
        try:
            OmegaConf.update(merged, key, value)
        except (OmegaConfBaseException, TypeError):
            mistakes.add(f"{source}: {key}={value}: expected {_in_words(kinds[key])}")
    return merged


def _in_words(kind: Any) -> str:
    """What a value of a type looks like."""
    text = getattr(kind, "__name__", str(kind)) if not str(kind).startswith("list") else str(kind)
    what = next((words for name, words in _WORDS.items() if name in text), text)
    return f"{what}, or null" if "None" in str(kind) else what


_WORDS = {
    "list[str]": "a list of texts: [one,two]",
    "list": "a list of numbers: [1,2]",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "str": "a text; '' for none",
    "dict": "settings by name: {name: ...}",
}


def _only_known(plain: Any, known: set[str], prefix: str = "") -> dict[str, Any]:
    """The settings that there are, of a nested mapping."""
    kept: dict[str, Any] = {}
    for key, value in plain.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict) and name not in OPEN:
            kept[key] = _only_known(value, known, f"{name}.")
        elif name in known and "." not in str(key):
            kept[key] = value
    return kept


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


def _unknown_keys(keys: set[str], known: set[str], sections: set[str]) -> Iterator[str]:
    for key in sorted(keys - known):
        if key in sections:
            yield f"{key} is a section; expected keys below it, such as {key}.{_first(key, known)}"
        elif key in RETIRED:
            yield f"{key} is gone; its place is {RETIRED[key]}"
        else:
            yield f"unknown key {key}; {_nearest_keys(key, known)}"


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


def _clear_alternatives(source: str, merged: Any, layer: DictConfig, mistakes: Mistakes) -> None:
    for pair in ALTERNATIVES:
        given = [key for key in pair if OmegaConf.select(layer, key) is not None]
        if len(given) == 2:
            mistakes.add(f"{source}: {pair[0]} and {pair[1]} say the same thing in two ways; keep one")
        for key in given:
            OmegaConf.update(merged, pair[1] if key == pair[0] else pair[0], None)
