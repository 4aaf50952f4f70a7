"""The labelled data sets of the `tune` section, and what can be wrong with them, found out before a model is built."""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dinov2.data.datasets import TileDataset
from dinov2.errors import UserError
from dinov2.eval.folds import hold_out
from dinov2.eval.labelled import LabelledSet, label_features, match_sets, open_labelled
from dinov2.eval.leakage import Overlap, find_overlap, slide_names

logger = logging.getLogger("dinov2")


@dataclass(frozen=True)
class Pair:
    """Labelled tiles to learn from, and others to be scored on, with the same class numbers.

    Attributes:
        name: the data set's, which begins the names of its scores; empty for the fork's single pair.
    """

    name: str
    query: LabelledSet
    test: LabelledSet

    @property
    def prefix(self) -> str:
        """What names of scores begin with."""
        return f"{self.name}." if self.name else ""


def open_pairs(tune: Any, *, transform: Callable[..., Any], max_pixels: int) -> list[Pair]:
    """Open all data sets of the section, the fork's pair first.

    Raises:
        UserError: if one is empty, has no labels or wrong ones, or a single class, or if query tiles lack a class.
    """
    strings = {name: (pair["query"], pair["test"]) for name, pair in tune.datasets.items()}
    if tune.query_dataset_path:
        strings = {"": (tune.query_dataset_path, tune.test_dataset_path), **strings}
    pairs = []
    for name, paths in strings.items():
        query, test = (
            open_labelled(f"{name} {side}".strip(), path, transform=transform, max_pixels=max_pixels)
            for side, path in zip(("query", "test"), paths)
        )
        pairs.append(Pair(name, query, *match_sets(query, [test])))
    return pairs


def check_held_out(pair: Pair, *, share: float, seed: int) -> None:
    """Make sure that a probe can set query tiles aside to choose its settings on.

    Raises:
        UserError: if there are too few of them, or too few slides.
    """
    (query,) = label_features([pair.query], [torch.empty(len(pair.query.labels), 0)])
    rest = hold_out(query, share=share, seed=seed).train
    if len(query.labels[rest].unique()) < 2:
        raise UserError(
            f"the {pair.query.name} set {pair.query.string} has too few slides: when some are set aside to choose a "
            "probe's settings on, a single class is left to learn from. Add slides, or set tune.probes=[knn]"
        )


def check_overlaps(training: TileDataset, pairs: Sequence[Pair], *, allowed: Collection[str]) -> None:
    """Compare the slides of training, query and test tiles, as far as they are known.

    Args:
        allowed: of `tune.allow_overlap`.
    Raises:
        UserError: with all overlaps that are not allowed.
    """
    trained_on = slide_names(training)
    refused: dict[str, Overlap] = {}
    for pair in pairs:
        for kind, overlap in _overlaps(trained_on, pair).items():
            if kind not in allowed and f"{pair.prefix}{kind}" not in allowed:
                refused[f"{pair.prefix}{kind}"] = overlap
            elif kind != "query_test":  # of which `match_sets` has warned
                logger.warning(f"{overlap}, as tune.allow_overlap allows")
    if refused:
        findings = "".join(f"\n  {name}: {overlap}" for name, overlap in refused.items())
        setting = ",".join([*allowed, *refused])
        raise UserError(
            f"tiles of the same slides, by their names, are in sets that should have none in common:{findings}\n"
            "Scores on them are better than on slides that the model has not seen. Leave these slides out of one side; "
            f"if it is meant to be so, or they are other slides of the same name, set tune.allow_overlap=[{setting}]"
        )


def _overlaps(trained_on: set[str] | None, pair: Pair) -> dict[str, Overlap]:
    """Overlaps of a pair by their kind."""
    names = {one.name: slide_names(one.dataset, has_warned=True) or set() for one in (pair.query, pair.test)}
    unknown = [name for name, slides in {"training": trained_on, **names}.items() if not slides]
    if unknown:
        logger.warning(
            f"slides of the {' and '.join(unknown)} set are not known, and not compared with others: whether its tiles "
            "are of slides that other sets have too is not checked"
        )
    query, test = (f"the {one.name} set" for one in (pair.query, pair.test))
    found = {
        "train_query": find_overlap(query, names[pair.query.name], "the training set", trained_on or set()),
        "train_test": find_overlap(test, names[pair.test.name], "the training set", trained_on or set()),
        "query_test": find_overlap(test, names[pair.test.name], query, names[pair.query.name]),
    }
    return {kind: overlap for kind, overlap in found.items() if overlap is not None}
