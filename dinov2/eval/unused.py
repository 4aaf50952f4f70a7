"""Flags and arguments of an evaluation that change nothing beside the others, and what is used instead."""

import argparse
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from typing import NamedTuple

from .arguments import make_parser
from .settings import EvaluationKeys

COMMANDS = ("knn", "linear", "log_regression", "cross_validate")
# Settings of the model that an evaluation reads.
MODEL = (
    "student.*",
    "augmentation.mean",
    "augmentation.std",
    "crops.global_crops_size",
    "compute_precision.teacher.backbone.mixed_precision.param_dtype",
    "data.*",
    "speed.*",
)
OF_COMMAND = {"knn": ("knn.[!o]*",), "cross_validate": ("knn.temperature",)}  # nothing reads knn.output_dir


class Unused(NamedTuple):
    """Flags of some commands that have no effect under a condition."""

    flags: tuple[str, ...]
    commands: tuple[str, ...]
    when: Callable[[argparse.Namespace, EvaluationKeys], bool]
    instead: str


def _reads_features(args: argparse.Namespace, keys: EvaluationKeys) -> bool:
    return args.features is not None and args.features.is_file()


ROWS = (
    Unused(
        ("temperature", "vote"),
        ("cross_validate",),
        lambda args, keys: not any(probe.endswith("-NN") for probe in args.probes),
        "--probes has no neighbours",
    ),
    Unused(
        ("temperature",),
        ("knn", "cross_validate"),
        lambda args, keys: args.vote == "majority",
        "--vote majority gives every neighbour one vote",
    ),
    Unused(
        ("iterations", "n_last_blocks"),
        ("cross_validate",),
        lambda args, keys: "linear" not in args.probes,
        "--probes has no linear; the others read the class token of the last block",
    ),
    Unused(
        ("n_tries",),
        ("knn",),
        lambda args, keys: set(keys.knn.n_per_class_list) == {-1},
        "all query tiles vote; --n-per-class-list draws some of them",
    ),
    Unused(
        ("group_by",),
        ("knn", "linear"),
        lambda args, keys: args.resamples == 0,
        "groups are for intervals, of which --resamples 0 computes none",
    ),
    Unused(
        ("test_metric_types",), ("linear",), lambda args, keys: not args.test_datasets, "there are no --test-datasets"
    ),
    Unused(
        ("features_on_disk", "gather_on_cpu", "num_workers"), COMMANDS, _reads_features, "--features has all features"
    ),
    Unused(
        ("batch_size",),
        ("knn", "log_regression", "cross_validate"),
        _reads_features,
        "--features has all features, and the model does not run",
    ),
    Unused(
        ("gather_on_cpu",), COMMANDS, lambda args, keys: args.features_on_disk, "--features-on-disk keeps them in files"
    ),
)


def unused_flags(name: str, args: argparse.Namespace, keys: EvaluationKeys) -> Iterator[str]:
    """A line for each reason: what was given without effect, and what is used instead."""
    parser = make_parser(name)
    given = [flag for flag, value in vars(args).items() if value is not None and value != parser.get_default(flag)]
    for row in ROWS:
        found = [flag for flag in given if flag in row.flags]
        if found and name in row.commands and row.when(args, keys):
            yield f"without effect: {', '.join('--' + flag.replace('_', '-') for flag in found)}; {row.instead}"
            given = [flag for flag in given if flag not in found]
    typed = [argument.partition("=")[0] for argument in (*args.opts, *args.more_opts)]
    read = (*MODEL, *OF_COMMAND.get(name, ()))
    idle = [key for key in typed if not any(fnmatchcase(key, pattern) for pattern in read)]
    if idle:
        yield f"without effect: {', '.join(idle)}; {name} reads settings of the model, its images and data"
