"""Splits of labelled samples in which no slide is on both sides.

scikit-learn's splitters, chosen by what is known: with groups none is divided, and classes keep their shares.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dinov2.errors import UserError

from .features import Features

logger = logging.getLogger("dinov2")


class Fold(NamedTuple):
    """Rows to train on and rows to test on, (m,) int64 each, ascending."""

    train: Tensor
    test: Tensor


def make_folds(samples: Features, *, count: int = 5, stratified: bool = True, seed: int = 0) -> list[Fold]:
    """Split samples so that each is tested once.

    Args:
        count: of folds.
        stratified: give all folds the same shares of the classes, as far as groups allow.
        seed: of the shuffling.
    Raises:
        UserError: if there are too few samples, groups, or samples of some class.
    """
    from sklearn import model_selection as sk

    labels = samples.labels.cpu().numpy()
    groups = None if samples.groups is None else samples.groups.cpu().numpy()
    _check_count(labels, groups, count, stratified=stratified)
    by_group, plain = (sk.StratifiedGroupKFold, sk.StratifiedKFold) if stratified else (sk.GroupKFold, sk.KFold)
    splitter: Any = (plain if groups is None else by_group)(count, shuffle=True, random_state=seed)
    return list(_folds(splitter, labels, groups))


def check_folds(
    samples: Features, folds: Sequence[Fold], *, classes: Sequence[str], chooses: bool = False, seed: int = 0
) -> None:
    """Make sure that there is something to learn in each fold.

    Args:
        classes: names by label.
        chooses: a classifier will `hold_out` samples of each fold to choose its settings on.
        seed: of that.
    Raises:
        UserError: naming the first fold that has samples of one class only to train on.
    """
    for number, fold in enumerate(folds, start=1):
        train, when = samples.select(fold.train), ""
        if chooses and len(train.labels.unique()) > 1:
            train, when = train.select(hold_out(train, seed=seed).train), ", once some are set aside to choose settings"
        present = train.labels.unique()
        if len(present) < 2:
            raise UserError(
                f"fold {number} of {len(folds)} leaves only samples of the class {classes[int(present[0])]!r} to train "
                f"on{when}: the other classes are in too few slides or groups. Change --n-folds, add slides, or group "
                "tiles by something else with --group-by"
            )


def hold_out(samples: Features, *, share: float = 0.1, seed: int = 0) -> Fold:
    """Set a share of the samples aside, whole groups where they are known, to choose settings on.

    Few groups make the share larger; of a single group, single samples are set aside.

    Raises:
        UserError: if there are fewer than two samples of every class.
    """
    largest = int(samples.labels.bincount().max())
    if largest < 2:
        raise UserError("one sample of each class is too few to set some aside for choosing settings")
    count = min(round(1 / share), largest)
    groups = None if samples.groups is None else len(samples.groups.unique())
    if groups == 1:
        logger.warning("all samples are of one group, so that single samples are set aside for choosing settings")
        samples = samples._replace(groups=None)
    elif groups is not None:
        count = min(count, groups)
    return make_folds(samples, count=count, seed=seed)[0]


def _folds(splitter: Any, labels: np.ndarray, groups: np.ndarray | None) -> Iterator[Fold]:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The least populated class")  # it is missing in some folds
        for train, test in splitter.split(labels, labels, groups):
            yield Fold(torch.from_numpy(train), torch.from_numpy(test))


def _check_count(labels: np.ndarray, groups: np.ndarray | None, count: int, *, stratified: bool) -> None:
    things, available = ("samples", len(labels)) if groups is None else ("groups", len(np.unique(groups)))
    if count < 2 or available < count:
        raise UserError(f"{count} folds of {available} {things}: expected 2 folds or more, and no more than {things}")
    most = int(np.bincount(labels).max())
    if stratified and most < count:
        raise UserError(f"{count} folds with equal shares of the classes, none of which has more than {most} samples")
