"""Settings as they were written, in a YAML file or as `key=value`.

YAML reads `010` as 8, `1:30` as 90 and `no` as false. A setting that is a text keeps what was typed; a number that is
not what it looks like is refused. Nothing is evaluated but `${section.key}`, the value of another setting:
`${oc.env:X}` and its like would carry what this machine knows into the files of a run.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from dinov2.errors import Mistakes, UserError

from .schema import rows

DEFAULT_FILE = Path(__file__).parent / "ssl_default_config.yaml"

# Octal numbers, and those of base 60.
_DECEPTIVE = re.compile(r"[-+]?(0[\d_]+|\d[\d_]*(:[0-5]?\d)+(\.\d*)?)")


def load_config_file(path: str | Path) -> DictConfig:
    """Read a YAML file.

    Raises:
        UserError: if it is missing, is not YAML, is no mapping, or has values that are not what they look like.
    """
    path = Path(path)
    if path.is_dir():
        raise UserError(f"configuration file {path} is a folder")
    if not path.is_file():
        nearby = sorted(
            str(one.with_suffix("").relative_to(DEFAULT_FILE.parent)) for one in DEFAULT_FILE.parent.rglob("*.yaml")
        )
        raise UserError(f"configuration file {path} does not exist. The packaged ones are: {', '.join(nearby)}")
    try:
        text = path.read_text(encoding="utf-8")
        config = OmegaConf.create(text)
        tree = yaml.compose(text, Loader=yaml.SafeLoader)
    except Exception as error:
        raise UserError(f"{path} is not a YAML file: {error}") from error
    if not isinstance(config, DictConfig):
        raise UserError(f"{path} holds a list, expected keys and values such as `train:`")
    mistakes = Mistakes()
    _take_as_typed(config, dict(_leaves(tree)), mistakes, source=str(path))
    mistakes.refuse()
    return config


def parse_overrides(arguments: Sequence[str], mistakes: Mistakes | None = None) -> DictConfig:
    """`key=value` arguments as a layer.

    Args:
        mistakes: takes those of arguments, which are left out.
    Raises:
        UserError: with all mistakes, if none are taken.
    """
    found = mistakes or Mistakes()
    layer: Any = OmegaConf.create({})
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key or argument.startswith("-"):
            found.add(f"argument {argument!r} is not understood: expected key=value, such as optim.epochs=10")
            continue
        try:
            single = OmegaConf.from_dotlist([argument])
            tree = yaml.compose(text, Loader=yaml.SafeLoader)
            if isinstance(tree, yaml.ScalarNode) and tree.style is None and " #" in text:  # no comment, here
                OmegaConf.update(single, key, text)
            _take_as_typed(single, {key: tree}, found, source="the command line")
            layer = OmegaConf.merge(layer, single)
        except Exception as error:
            found.add(f"argument {argument!r} cannot be read: {error}")
    if mistakes is None:
        found.refuse()
    return layer


@cache
def _text_keys() -> frozenset[str]:
    return frozenset(row.key for row in rows() if row.kind in (str, str | None, list[str]))


def _take_as_typed(config: DictConfig, trees: dict[str, yaml.Node | None], mistakes: Mistakes, *, source: str) -> None:
    """Let texts be what was typed, and note what is evaluated or is another number than it looks like.

    Args:
        trees: what was typed, by dotted names.
    """
    plain = OmegaConf.to_container(config, resolve=False)
    for key, value in _strings(plain):
        if value == "???":
            mistakes.add(f"{source}: {key}={value} is still to be filled in")
        elif _is_evaluated(value):
            mistakes.add(
                f"{source}: {key}: {value} is not evaluated, since a run writes its settings into its files. Write the "
                f"value itself, or let the shell fill it in: {key}=$NAME on the command line"
            )
        else:
            continue
        section, _, name = key.rpartition(".")
        OmegaConf.update(config, key, None)  # what is taken out is looked at
        (OmegaConf.select(config, section) or config).pop(name)
    for key, tree in trees.items():
        nodes: list[Any] = tree.value if isinstance(tree, yaml.SequenceNode) else [tree]
        found = at(plain, key)
        values = found if isinstance(found, list) else [found]
        if len(values) != len(nodes) or not all(isinstance(node, yaml.ScalarNode) for node in nodes):
            continue
        if key in _text_keys() and any(isinstance(value, bool | int | float) for value in values):
            typed = [node.value for node in nodes]
            OmegaConf.update(config, key, typed if isinstance(found, list) else typed[0])
            continue
        for node, value in zip(nodes, values):
            if node.style is None and isinstance(value, int | float) and _DECEPTIVE.fullmatch(node.value):
                mistakes.add(f"{source}: {key}={node.value} would be read as {value}; write the number that you mean")


def at(plain: Any, key: str) -> Any:
    """A value of a nested mapping by its dotted name; None where there is none."""
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def _leaves(tree: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, yaml.Node]]:
    """What was typed, by dotted names."""
    if isinstance(tree, yaml.MappingNode):
        for key, value in tree.value:
            yield from _leaves(value, f"{prefix}.{key.value}" if prefix else key.value)
    elif tree is not None:
        yield prefix, tree


def _strings(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """All texts by dotted names; those of a list by the name of the list."""
    if isinstance(value, dict):
        for key, one in value.items():
            yield from _strings(one, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list):
        for one in value:
            yield from _strings(one, prefix)
    elif isinstance(value, str):
        yield prefix, value


def _is_evaluated(text: str) -> bool:
    """Whether there is a ":" inside of "${" and "}", which calls a function by its name."""
    depth = 0
    for i, letter in enumerate(text):
        if text.startswith("${", i):
            depth += 1
        elif depth and letter == ":":
            return True
        elif depth and letter == "}":
            depth -= 1
    return False
