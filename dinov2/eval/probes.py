"""Classifiers of features that can be trained and asked in one call: for cross-validation, and during training."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from .features import Features
from .knn_votes import knn_vote
from .linear_heads import LinearSettings
from .linear_probe import fit_linear
from .logistic import LogisticSettings, fit_logistic


class Probe(Protocol):
    """Learns from labelled features and scores others; all ranks take part."""

    def __call__(self, train: Features, test: Tensor, *, num_classes: int, device: torch.device) -> Tensor:
        """Scores (m, C) in main memory of features (m, D), after learning from others of the same D."""


@dataclass(frozen=True)
class KnnProbe:
    """The vote of the k nearest; see `knn_votes`.

    Attributes:
        columns: the features that are compared.
    """

    k: int
    temperature: float = 0.07
    vote: str = "softmax"
    columns: slice = field(default_factory=lambda: slice(None))

    def __call__(self, train: Features, test: Tensor, *, num_classes: int, device: torch.device) -> Tensor:
        """Votes (m, C)."""
        votes = knn_vote(
            train.columns(self.columns),
            test[:, self.columns],
            nb_knn=[self.k],
            num_classes=num_classes,
            temperature=self.temperature,
            vote=self.vote,
            device=device,
        )
        return votes[self.k]


@dataclass(frozen=True)
class LinearProbe:
    """The best of a grid of linear heads; see `linear_probe`.

    Attributes:
        inputs: columns of the features by the name of their kind.
    """

    inputs: Mapping[str, slice]
    settings: LinearSettings = field(default_factory=LinearSettings)

    def __call__(self, train: Features, test: Tensor, *, num_classes: int, device: torch.device) -> Tensor:
        """Probabilities (m, C)."""
        fit = fit_linear(train, inputs=self.inputs, num_classes=num_classes, device=device, settings=self.settings)
        return fit.model.scores(test)


@dataclass(frozen=True)
class LogisticProbe:
    """Logistic regression with C chosen on held-out samples; see `logistic`.

    Attributes:
        columns: the features that it reads.
    """

    settings: LogisticSettings = field(default_factory=LogisticSettings)
    columns: slice = field(default_factory=lambda: slice(None))

    def __call__(self, train: Features, test: Tensor, *, num_classes: int, device: torch.device) -> Tensor:
        """Probabilities (m, C)."""
        chosen = train.columns(self.columns)
        fit = fit_logistic(chosen, num_classes=num_classes, device=device, settings=self.settings)
        return fit.model.scores(test[:, self.columns])
