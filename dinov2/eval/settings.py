"""What an evaluation is told, from defaults, a configuration file, `key=value` arguments and flags.

The file describes the model as in training: a run's own config.yaml, or one of configs/eval. The keys below, which
are the fork's, may stand in it too; flags of the same meaning win over them.
"""

import argparse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from omegaconf import DictConfig, OmegaConf

from dinov2.configs import load_config_file, merge_layers, parse_overrides, validate_config
from dinov2.configs.merge import merge_typed, resolve_settings
from dinov2.configs.schema import LARGEST
from dinov2.configs.validate import in_words
from dinov2.errors import Mistakes, UserError, unknown_name
from dinov2.hub import find

from .choices import CROP
from .flags import wrong_flags

COMMAND_LINE = "the command line"


@dataclass
class DataKeys:
    """What is evaluated on, and in what portions."""

    query_dataset: str | None = None  # labelled tiles to learn from
    test_dataset: str | None = None  # labelled tiles to be scored on
    batch_size: int = 256
    image_size: int = 256  # pixels of a tile's side: 224 is taken as it is, more is resized to 256 and cut

    @property
    def resize_size(self) -> int:
        """Pixels that the shorter side of a tile is resized to."""
        return CROP if self.image_size == CROP else 256


@dataclass
class KnnKeys:
    """How neighbours vote; see `KnnSettings`."""

    nb_knn: list[int] = field(default_factory=lambda: [10, 20, 100, 200])
    temperature: float = 0.07
    n_tries: int = 1
    n_per_class_list: Any = field(default_factory=lambda: [-1])  # a list, or one number
    output_dir: str = ""  # read by nothing, here and in the fork


@dataclass
class SpeedKeys:
    """What changes no result."""

    num_workers: int = 8
    gather_on_cpu: bool = False


@dataclass
class EvaluationKeys:
    """The keys of a configuration file that are not those of a training."""

    data: DataKeys = field(default_factory=DataKeys)
    knn: KnnKeys = field(default_factory=KnnKeys)
    speed: SpeedKeys = field(default_factory=SpeedKeys)


# Flags of the commands, and the keys that they win over.
FLAGS = {
    "train_dataset": "data.query_dataset",
    "val_dataset": "data.test_dataset",
    "batch_size": "data.batch_size",
    "num_workers": "speed.num_workers",
    "gather_on_cpu": "speed.gather_on_cpu",
    "nb_knn": "knn.nb_knn",
    "temperature": "knn.temperature",
    "n_per_class_list": "knn.n_per_class_list",
    "n_tries": "knn.n_tries",
}


def load_settings(args: argparse.Namespace, mistakes: Mistakes | None = None) -> tuple[DictConfig, EvaluationKeys]:
    """The configuration of the model, and the keys of the evaluation.

    Args:
        args: of `base_parser`; the flags in `FLAGS` are None where they are not given.
        mistakes: takes keys and values that are not right, which are left out.
    Raises:
        UserError: with all of them, if none are taken.
    """
    found = mistakes or Mistakes()
    layers = [("--hub-model", _layer(_published(args.hub_model)))] if args.hub_model else []
    layers += [(args.config_file, load_config_file(args.config_file))] if args.config_file else []
    layers.append((COMMAND_LINE, parse_overrides([*args.opts, *args.more_opts], found)))
    own, rest = [], []
    for source, layer in layers:
        mine, others = _split(source, layer, found)
        own.append((source, mine))
        rest.append((source, others))
    given = {key: getattr(args, flag) for flag, key in FLAGS.items() if getattr(args, flag, None) is not None}
    own.append((COMMAND_LINE, _layer(given)))
    if args.untrained or args.pretrained_weights:
        rest.append((COMMAND_LINE, _layer({"student.pretrained_weights": args.pretrained_weights or ""})))
    cfg = merge_layers(rest, found)
    validate_config(cfg, found)
    keys = _merged(own, found)
    for mistake in wrong_flags(args, keys.data.test_dataset):
        found.add(mistake)
    if mistakes is None:
        found.refuse()
    return cfg, keys


def _published(name: str) -> dict[str, Any]:
    """The settings of a published model, its weights among them."""
    entry = find(name)
    if not entry.settings:
        raise UserError(f"--hub-model {name}: this is a {entry.kind}, and no model to be evaluated")
    return {**entry.configuration, "student.pretrained_weights": name}


def _layer(values: Mapping[str, Any]) -> DictConfig:
    """Settings by dotted names as a layer."""
    layer = OmegaConf.create({})
    for key, value in values.items():
        OmegaConf.update(layer, key, value)
    return layer


def _split(source: str, layer: DictConfig, mistakes: Mistakes) -> tuple[DictConfig, DictConfig]:
    """The keys of an evaluation in a layer, and all others."""
    others: Any = OmegaConf.to_container(layer, resolve=False)
    mine: dict[str, Any] = {}
    for section in fields(EvaluationKeys):
        keys = [key.name for key in fields(section.default_factory)]  # type: ignore[arg-type, misc]
        given = others.pop(section.name, None) or {}
        if not isinstance(given, dict):
            mistakes.add(f"{source}: {section.name} is a section; expected keys below it, such as {keys[0]}")
            continue
        for key in [key for key in keys if isinstance(given.get(key), dict)]:
            mistakes.add(f"{source}: {section.name}.{key}={given.pop(key)}: expected a value, or a list of them")
        mine[section.name] = {key: given.pop(key) for key in keys if key in given}
        if section.name == "data":  # which a training has as well
            others.update({"data": given} if given else {})
            continue
        for key in given:
            mistakes.add(f"{source}: {unknown_name(f'key of {section.name}', str(key), keys)}")
    return OmegaConf.create(mine), OmegaConf.create(others)


def _merged(layers: list[tuple[str, DictConfig]], mistakes: Mistakes) -> EvaluationKeys:
    merged: Any = OmegaConf.structured(EvaluationKeys)
    for source, layer in layers:
        merged = merge_typed(source, merged, layer, mistakes)
    resolve_settings(merged, OmegaConf.structured(EvaluationKeys), mistakes)
    keys: EvaluationKeys = OmegaConf.to_object(merged)  # type: ignore[assignment]
    if not isinstance(keys.knn.n_per_class_list, list):
        keys.knn.n_per_class_list = [keys.knn.n_per_class_list]
    for mistake in _wrong(keys):
        mistakes.add(mistake)
    return keys


def _wrong(keys: EvaluationKeys) -> Iterator[str]:
    if min(keys.knn.nb_knn, default=0) < 1:
        yield f"nb_knn={keys.knn.nb_knn}: expected numbers of neighbours, 1 or more"
    for name, values in {"nb_knn": keys.knn.nb_knn, "n_per_class_list": keys.knn.n_per_class_list}.items():
        if len(set(values)) < len(values):
            yield f"{name}={values}: expected each number once"
    if not keys.knn.n_per_class_list or any(
        not isinstance(n, int) or (n < 1 and n != -1) for n in keys.knn.n_per_class_list
    ):
        yield f"n_per_class_list={keys.knn.n_per_class_list}: expected numbers of query tiles per class, -1 for all"
    for name, value, least, most in (
        ("temperature", keys.knn.temperature, 1e-4, 1000),
        ("n_tries", keys.knn.n_tries, 1, LARGEST),
        ("batch_size", keys.data.batch_size, 1, LARGEST),
        ("num_workers", keys.speed.num_workers, 0, LARGEST),
        ("data.image_size", keys.data.image_size, CROP, 65536),
    ):
        if not least <= value <= most:
            yield f"{name}={value}: expected {in_words(least, most, value)}"
