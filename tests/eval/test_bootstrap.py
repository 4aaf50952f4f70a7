"""Intervals: the figures of a resample, groups that stay together, and known standard errors."""

import math

import numpy as np
import pytest
import torch

from dinov2.eval.bootstrap import _Sample, bootstrap_intervals
from dinov2.eval.metrics import classification_metrics


def make_scores(samples: int, classes: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Scores (n, C) with many equal ones, and labels (n,)."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    scores = np.round(rng.dirichlet(np.ones(classes), samples) + 0.4 * np.eye(classes)[labels], 1)
    return torch.from_numpy(scores), torch.from_numpy(labels)


@pytest.mark.parametrize("classes", [2, 4, 7])
@pytest.mark.parametrize("repeats", [[1] * 40, [0, 2, 1, 3] * 10, [5] + [0] * 38 + [3]])
def test_weighted_figures_are_those_of_repeated_samples(classes, repeats):
    """In the last case most classes do not occur."""
    scores, labels = make_scores(40, classes)
    weights = np.array([repeats], float)
    found = _Sample(scores, labels, None).metrics(weights)
    rows = torch.arange(40).repeat_interleave(torch.tensor(repeats))
    expected = classification_metrics(scores[rows], labels[rows])
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name][0] == pytest.approx(value, abs=1e-6, nan_ok=True), name


def test_width_is_that_of_the_standard_error():
    rng = np.random.default_rng(0)
    right = rng.random(2000) < 0.8
    scores = torch.from_numpy(np.stack([right, ~right], axis=1).astype(float))
    low, high = bootstrap_intervals(scores, torch.zeros(2000, dtype=torch.int64))["acc"]
    expected = 1.96 * math.sqrt(0.8 * 0.2 / 2000)
    assert high - low == pytest.approx(2 * expected, rel=0.15)
    assert low < right.mean() < high


def test_groups_are_drawn_whole():
    """Twenty slides of a hundred tiles, all right or all wrong: there are only twenty independent answers."""
    right = np.repeat(np.random.default_rng(0).random(20) < 0.7, 100)
    scores = torch.from_numpy(np.stack([right, ~right], axis=1).astype(float))
    labels, groups = torch.zeros(2000, dtype=torch.int64), torch.arange(2000) // 100 * 7
    by_tile = bootstrap_intervals(scores, labels)["acc"]
    by_slide = bootstrap_intervals(scores, labels, groups=groups)["acc"]
    assert by_slide.high - by_slide.low > 5 * (by_tile.high - by_tile.low)
    assert (20 * by_slide.low) % 0.5 == pytest.approx(0, abs=1e-9)  # percentiles of multiples of 1/20


def test_seed_and_level():
    scores, labels = make_scores(100, 3)
    assert bootstrap_intervals(scores, labels) == bootstrap_intervals(scores, labels)
    assert bootstrap_intervals(scores, labels) != bootstrap_intervals(scores, labels, seed=1)
    narrow, wide = (bootstrap_intervals(scores, labels, level=level)["auc"] for level in (0.5, 0.99))
    assert wide.low < narrow.low < narrow.high < wide.high


def test_resamples_without_a_figure_do_not_count():
    scores = torch.tensor([[0.9, 0.1], [0.2, 0.8], [0.8, 0.2]])
    low, high = bootstrap_intervals(scores, torch.tensor([0, 1, 0]))["auc"]
    assert (low, high) == (1.0, 1.0)
    assert math.isnan(bootstrap_intervals(scores, torch.tensor([0, 0, 0]))["auc"].low)


def test_pieces_do_not_matter(monkeypatch):
    scores, labels = make_scores(50, 3)
    expected = bootstrap_intervals(scores, labels, resamples=40)
    monkeypatch.setattr("dinov2.eval.bootstrap.PIECE", 150)
    assert bootstrap_intervals(scores, labels, resamples=40) == expected
