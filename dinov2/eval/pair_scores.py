"""What the features of a network are worth on a query and a test set: scores by name, for the log of a training.

Probes learn from the query features and are scored on the test features. A score is called

    [{probe}_]{metric}[_{k}][_{n}shot]

without a probe for k-NN; the same with _low and _high are the ends of its 95 % bootstrap interval. Where sites are
known there are site_bacc_{k} and site_ratio_{k} besides, see `site_robustness`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from dinov2.distributed.outcomes import on_main

from .bootstrap import bootstrap_intervals
from .features import Features
from .knn_votes import ALL, KnnCase, KnnSettings, knn_scores
from .linear_heads import LinearSettings
from .logistic import LogisticSettings
from .metrics import classification_metrics
from .probes import LinearProbe, LogisticProbe
from .site_robustness import evaluate_sites
from .tokens import FeatureKind, grid_columns, widest_kind

# Metrics as scores call them, and as `classification_metrics` does.
METRICS = {"acc": "acc", "bacc": "bacc", "auc": "auc", "f1": "f1_macro"}
CLASS_TOKEN = FeatureKind()
# The powers of ten in the range of DINOv2's 45 values of C.
POWERS_OF_TEN = LogisticSettings(cs=tuple(10.0**power for power in range(-6, 6)), max_iter=200)


@dataclass(frozen=True)
class PairSettings:
    """How features are scored.

    Attributes:
        probes: any of "knn", "linear", "log_regression".
        n_last_blocks: numbers of blocks whose class tokens a linear head reads.
        resamples: of the bootstrap; 0: no intervals.
        interval_k: number of neighbours whose k-NN scores get intervals; other probes always do.
    """

    probes: Sequence[str] = ("knn",)
    knn: KnnSettings = field(default_factory=KnnSettings)
    linear: LinearSettings = field(default_factory=LinearSettings)
    logistic: LogisticSettings = POWERS_OF_TEN
    n_last_blocks: Sequence[int] = (1,)
    resamples: int = 200
    interval_k: int = 20

    @property
    def kind(self) -> FeatureKind:
        """The features in which every probe finds its own."""
        return widest_kind(self.n_last_blocks) if "linear" in self.probes else CLASS_TOKEN

    def class_token(self, width: int) -> slice:
        """Where the class token of the last block stands in features of `kind`, which have a width."""
        return self.kind.columns(CLASS_TOKEN, width // (self.kind.num_blocks + self.kind.avgpool))


class Scored(NamedTuple):
    """What a probe says about the test set.

    Attributes:
        form: the name of its scores with {} for the metric.
        tries: class scores (m, C) of models that differ in their query samples.
        draws: whether samples are drawn for intervals.
    """

    form: str
    tries: Sequence[Tensor]
    draws: bool


def score_pair(
    query: Features, test: Features, settings: PairSettings, *, num_classes: int, device: torch.device
) -> dict[str, float]:
    """Scores by name; all ranks take part, and get those of the main process.

    A figure that does not exist, such as an interval of which no sample has two classes, is left out.

    Args:
        query, test: features of `settings.kind`.
    """
    found = list(_apply_probes(query, test.values, settings, num_classes=num_classes, device=device))
    of_sites = _site_scores(query, test, settings)

    def figures() -> dict[str, float]:
        scores: dict[str, float] = {}
        for scored in found:
            scores |= _means(scored, test.labels)
            if scored.draws and settings.resamples:
                scores |= _intervals(scored, test, settings.resamples)
        scores |= of_sites
        return {name: value for name, value in scores.items() if not math.isnan(value)}

    return on_main(figures)


def _apply_probes(
    query: Features, test: Tensor, settings: PairSettings, *, num_classes: int, device: torch.device
) -> Iterator[Scored]:
    """What each probe learns from query features and says about test features (m, D)."""
    learner: Any = {"num_classes": num_classes, "device": device}
    token = settings.class_token(test.shape[1])
    if "knn" in settings.probes:
        chosen = KnnCase(ALL, settings.interval_k)
        cases = knn_scores(query.columns(token), test[:, token], settings.knn, **learner)
        yield from (Scored(f"{{}}_{case}", tries, case == chosen) for case, tries in cases.items())
    if "linear" in settings.probes:
        linear = LinearProbe(grid_columns(settings.n_last_blocks, test.shape[1]), settings.linear)
        yield Scored("linear_{}", [linear(query, test, **learner)], draws=True)
    if "log_regression" in settings.probes:
        logistic = LogisticProbe(settings.logistic, token)
        yield Scored("log_regression_{}", [logistic(query, test, **learner)], draws=True)


def _site_scores(query: Features, test: Features, settings: PairSettings) -> dict[str, float]:
    """How much neighbours tell about sites; nothing where k-NN is not asked for, or sites are not known."""
    if "knn" not in settings.probes or query.sites is None or test.sites is None:
        return {}
    token = settings.class_token(query.values.shape[1])
    return evaluate_sites(query.columns(token), test.columns(token), settings.knn)


def _means(scored: Scored, labels: Tensor) -> dict[str, float]:
    """The metrics, averaged over tries."""
    figures = [classification_metrics(scores, labels) for scores in scored.tries]
    return {
        scored.form.format(name): float(np.mean([one[metric] for one in figures])) for name, metric in METRICS.items()
    }


def _intervals(scored: Scored, test: Features, resamples: int) -> dict[str, float]:
    """Ends of the intervals by name."""
    intervals = bootstrap_intervals(scored.tries[0], test.labels, groups=test.groups, resamples=resamples)
    return {
        f"{scored.form.format(name)}_{end}": value
        for name, metric in METRICS.items()
        for end, value in intervals[metric]._asdict().items()
    }
