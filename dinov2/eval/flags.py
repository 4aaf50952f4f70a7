"""What is wrong with the flags of an evaluation, found out before torch is imported."""

import argparse
import re
from collections.abc import Callable, Iterator
from typing import Any

from dinov2.configs.schema import LARGEST
from dinov2.configs.validate import in_words
from dinov2.errors import unknown_name

RANGES = {
    "seed": (0, 2**32 - 1),
    "resamples": (0, LARGEST),
    "resize_size": (1, 65536),
    "crop_size": (1, 65536),
    "epochs": (1, LARGEST),
    "epoch_length": (1, LARGEST),
    "save_checkpoint_frequency": (0, LARGEST),
    "eval_period_iterations": (0, LARGEST),
    "learning_rates": (1e-12, 1000),
    "c_values": (1e-12, 10**12),
    "max_train_iters": (1, LARGEST),
    "n_folds": (2, LARGEST),
    "iterations": (1, LARGEST),
}


def wrong_flags(args: argparse.Namespace, val_dataset: str | None) -> Iterator[str]:
    """Everything that is wrong.

    Args:
        val_dataset: the labelled tiles to be scored on, wherever they are named.
    """
    for flag, (least, most) in RANGES.items():
        given = getattr(args, flag, None)
        for one in given if isinstance(given, list | tuple) else [given]:
            if one is not None and not least <= one <= most:
                yield f"--{flag.replace('_', '-')} {one}: expected {in_words(least, most, one)}"
    yield from _OF_COMMAND[args.evaluation](args, val_dataset)


def _of_knn(args: argparse.Namespace, val_dataset: str | None) -> Iterator[str]:
    if not val_dataset:
        yield "there is nothing to be scored on: name labelled tiles with --val-dataset"


def _of_linear(args: argparse.Namespace, val_dataset: str | None) -> Iterator[str]:
    if not val_dataset:
        yield "there is nothing to choose the best head on: name labelled tiles with --val-dataset"
    if len(args.test_metric_types) not in (1, len(args.test_datasets)):
        yield (
            f"--test-metric-types {' '.join(args.test_metric_types)}: expected one, or one for each of the "
            f"{len(args.test_datasets)} --test-datasets"
        )
    yield from _repeated("--learning-rates", args.learning_rates)


def _of_log_regression(args: argparse.Namespace, val_dataset: str | None) -> Iterator[str]:
    if not (val_dataset or args.test_datasets):
        yield "there is nothing to be scored on: name labelled tiles with --val-dataset or --test-datasets"
    if args.finetune_on_val and (args.finetune_dataset_str or not val_dataset):
        yield "--finetune-on-val chooses C on the tiles of --val-dataset: give those, and nothing else to choose on"


def _of_cross_validate(args: argparse.Namespace, val_dataset: str | None) -> Iterator[str]:
    for name in args.probes:
        if name not in ("linear", "log_regression") and not re.fullmatch(r"[1-9]\d*-NN", name):
            yield str(unknown_name("classifier of --probes", name, ("1-NN", "20-NN", "linear", "log_regression")))
    yield from _repeated("--probes", args.probes)


def _repeated(flag: str, values: list[Any]) -> Iterator[str]:
    if len(set(values)) < len(values):
        yield f"{flag} {' '.join(map(str, values))}: expected each once"


_OF_COMMAND: dict[str, Callable[[argparse.Namespace, str | None], Iterator[str]]] = {
    "knn": _of_knn,
    "linear": _of_linear,
    "log_regression": _of_log_regression,
    "cross_validate": _of_cross_validate,
}
