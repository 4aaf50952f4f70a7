"""How far a figure would move on another test set: percentile intervals by the bootstrap.

Source: Efron 1979. What is drawn with replacement are the groups, slides or patients, since tiles of one slide
resemble each other; each tile alone only where no groups are known, which makes intervals too narrow.

torchmetrics has no figures of weighted samples, nor of many resamples at once, so those of `metrics.py` are computed
here from the resamples' confusion matrices and ranks; a test holds both equal.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .metrics import AVERAGES, TOP5_CLASSES, among_five, probabilities_of

PIECE = 1 << 23  # numbers in an array of some resamples: 64 MiB


class Interval(NamedTuple):
    """Ends of an interval that holds a figure with the chosen confidence."""

    low: float
    high: float


def bootstrap_intervals(
    scores: Tensor,
    labels: Tensor,
    *,
    groups: Tensor | None = None,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> dict[str, Interval]:
    """Intervals of the figures of `classification_metrics`, by their names.

    Args:
        scores, labels: (n, C), (n,), as there.
        groups: (n,) int64, equal for samples that are drawn together; None: each sample for itself.
        resamples: those in which a figure does not exist, such as an area where only one class was drawn, do not
            count for it.
        level: share of the resampled figures between the ends.
    """
    sample = _Sample(scores, labels, groups)
    parts = [sample.metrics(weights) for weights in sample.resampled(resamples, seed)]
    tails = [(1 - level) / 2, (1 + level) / 2]
    intervals = {}
    for name in parts[0]:
        figures = np.concatenate([part[name] for part in parts])  # (R,)
        figures = figures[~np.isnan(figures)]
        intervals[name] = Interval(*np.quantile(figures, tails).tolist()) if len(figures) else Interval(np.nan, np.nan)
    return intervals


class _Sample:
    """A test set, prepared for being weighed again and again."""

    def __init__(self, scores: Tensor, labels: Tensor, groups: Tensor | None) -> None:
        self.scores, self.labels = probabilities_of(scores.cpu()).numpy(), labels.cpu().numpy()  # (n, C), (n,)
        self.count = self.scores.shape[1]
        predicted = scores.cpu().argmax(dim=1).numpy()
        self.cells = self.labels * self.count + predicted  # (n,), of the confusion matrix
        every = np.arange(len(self.labels)) if groups is None else groups.cpu().numpy()
        names, self.groups = np.unique(every, return_inverse=True)
        self.num_groups = len(names)
        classes = [1] if self.count == 2 else range(self.count)
        self.rankings = [_Ranking(self.scores[:, label], self.labels == label) for label in classes]
        if self.count >= TOP5_CLASSES:
            five = among_five(torch.from_numpy(self.scores), torch.from_numpy(self.labels))
            self.in_five = five.numpy().astype(float)  # (n,)

    def resampled(self, resamples: int, seed: int) -> Iterator[NDArray[np.float64]]:
        """How often each sample was drawn, (r, n) for some resamples at a time."""
        generator = np.random.default_rng(seed)
        step = max(PIECE // max(len(self.labels), self.count**2), 1)
        for first in range(0, resamples, step):
            rows = min(step, resamples - first)
            drawn = generator.integers(self.num_groups, size=(rows, self.num_groups))
            yield _count(drawn, self.num_groups)[:, self.groups]

    def metrics(self, weights: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
        """The figures (r,) of samples with weights (r, n)."""
        cells = np.broadcast_to(self.cells, weights.shape)
        confusion = _count(cells, self.count**2, weights).reshape(-1, self.count, self.count)
        with np.errstate(invalid="ignore"):  # 0 / 0 is NaN: there is no such figure
            figures = confusion_metrics(confusion)
            aucs = np.stack([ranking.auc(weights) for ranking in self.rankings], axis=1)  # (r, C), two classes: (r, 1)
            figures["auc"] = _mean(aucs, ~np.isnan(aucs))
        if self.count >= TOP5_CLASSES:
            figures["top5"] = (weights @ self.in_five) / weights.sum(axis=1)
        return figures


class _Ranking:
    """Samples in the order of their scores for one class."""

    def __init__(self, scores: NDArray[np.float64], is_class: NDArray[np.bool_]) -> None:
        self.order = np.argsort(scores)  # (n,)
        self.is_class = is_class[self.order]
        self.starts = np.flatnonzero(np.diff(scores[self.order], prepend=-1.0))  # of equal scores

    def auc(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """Area under the ROC curve against all other classes, (r,) for weights (r, n); NaN where there is none."""
        weights = weights[:, self.order]
        inside = np.add.reduceat(weights * self.is_class, self.starts, axis=1)  # (r, distinct scores)
        outside = np.add.reduceat(weights * ~self.is_class, self.starts, axis=1)
        below = (
            np.cumsum(outside, axis=1) - outside / 2
        )  # other samples with lower scores, and half of those with equal
        return (inside * below).sum(axis=1) / (inside.sum(axis=1) * outside.sum(axis=1))


def confusion_metrics(confusion: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """The figures of `classification_metrics` that need predictions only, (r,) each.

    Args:
        confusion: (r, C, C) weights by true and predicted class.
    """
    hits = np.diagonal(confusion, axis1=1, axis2=2)  # (r, C)
    true, predicted = confusion.sum(axis=2), confusion.sum(axis=1)  # (r, C)
    total = true.sum(axis=1)  # (r,)
    precision, recall = _share(hits, predicted), _share(hits, true)  # (r, C)
    f1 = _share(2 * hits, true + predicted)
    by_chance = (true * predicted).sum(axis=1) / total**2
    accuracy = hits.sum(axis=1) / total
    figures = {
        "acc": accuracy,
        "bacc": _mean(recall, true > 0),
        "kappa": (accuracy - by_chance) / (1 - by_chance),
    }
    occurs = true + predicted > 0
    for average, weights in zip(AVERAGES, (occurs.astype(float), true)):
        for name, values in (("f1", f1), ("precision", precision), ("recall", recall)):
            figures[f"{name}_{average}"] = (values * weights).sum(axis=1) / weights.sum(axis=1)
    return figures


def _count(numbers: NDArray[np.int64], size: int, weights: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """For each row of (r, m), how much of each number 0 .. size-1 it has, (r, size)."""
    rows = len(numbers)
    places = numbers + size * np.arange(rows)[:, None]
    flat = None if weights is None else weights.ravel()
    return np.bincount(places.ravel(), weights=flat, minlength=rows * size).reshape(rows, size).astype(float)


def _share(part: NDArray[np.float64], whole: NDArray[np.float64]) -> NDArray[np.float64]:
    """part / whole, 0 where the whole is 0."""
    return np.divide(part, whole, out=np.zeros_like(whole), where=whole > 0)


def _mean(values: NDArray[np.float64], counted: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean over the counted of (r, C), (r,); NaN where there are none."""
    return np.where(counted, values, 0.0).sum(axis=1) / counted.sum(axis=1)
