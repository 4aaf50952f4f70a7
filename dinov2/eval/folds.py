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
    samples: Features,
    folds: Sequence[Fold],
    *,
    classes: Sequence[str],
    chooses: bool = False,
    seed: int = 0,
    allow_missing_classes: bool = False,
) -> dict[str, dict[str, list[int]]]:
    """Make sure that every fold can learn what it is tested on.

    Args:
        classes: names by label.
        chooses: a classifier will `hold_out` samples of each fold to choose its settings on.
        seed: of that.
        allow_missing_classes: only warn of classes that a fold is tested on and has no samples of to train on.
    Returns:
        What results have to say: numbers of the folds that could not learn a class, and that did not test one, by its
        name; there is a warning of each.
    Raises:
        UserError: naming the first fold that has samples of one class only to train on, or such classes.
    """
    _check_several_classes(samples, folds, classes=classes, chooses=chooses, seed=seed)
    untaught, untested = _absent_classes(samples, folds, classes)
    if untaught:
        listed = "; ".join(f"{name!r} in fold {_listed(numbers)}" for name, numbers in untaught.items())
        message = (
            f"of {len(folds)} folds some have no tile of a class to train on that they are tested on: {listed}. All "
            "its tiles are of one slide or group, or of too few to be in every training part"
        )
        if not allow_missing_classes:
            raise UserError(
                f"{message}. Leave the class out, add slides of it, change --n-folds or --seed, or group tiles by "
                "something else with --group-by; with --allow-missing-classes these tiles count as wrong"
            )
        logger.warning(f"{message}. They count as wrong")
    for name, numbers in untested.items():
        logger.warning(
            f"fold {_listed(numbers)} of {len(folds)} has no tile of class {name!r} to test: its means over classes "
            "are over the others. The row of all folds together has all classes"
        )
    return {"classes_not_learnt_in_folds": untaught, "classes_not_tested_in_folds": untested}


def _listed(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers))


def _absent_classes(
    samples: Features, folds: Sequence[Fold], classes: Sequence[str]
) -> tuple[dict[str, list[int]], dict[str, list[int]]]:
    """Numbers of the folds that test a class without training on it, and that do not test it, by its name."""
    untaught: dict[str, list[int]] = {}
    untested: dict[str, list[int]] = {}
    for number, fold in enumerate(folds, start=1):
        taught, tested = (set(samples.labels[rows].tolist()) for rows in fold)
        for label in sorted(taught ^ tested):
            (untested if label in taught else untaught).setdefault(classes[label], []).append(number)
    return untaught, untested


def _check_several_classes(
    samples: Features, folds: Sequence[Fold], *, classes: Sequence[str], chooses: bool, seed: int
) -> None:
    """Refuse a fold that has samples of one class only to train on."""
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
    folds = make_folds(samples, count=count, seed=seed)
    taught = [len(samples.labels[fold.train].unique()) for fold in folds]
    return folds[taught.index(max(taught))]  # the first one that leaves all classes to learn from, if one does


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
