"""Cross-validation scores every sample by a model that has not seen it, and other sets by every model."""

import pytest
import torch
from eval_making import clusters

from dinov2.eval.cross_validation import CROSS_VALIDATION, cross_validate
from dinov2.eval.features import Features
from dinov2.eval.folds import make_folds
from dinov2.eval.linear_heads import LinearSettings
from dinov2.eval.logistic import LogisticSettings
from dinov2.eval.metrics import classification_metrics
from dinov2.eval.probes import KnnProbe, LinearProbe, LogisticProbe

CPU = torch.device("cpu")
PROBES = {
    "1-NN": KnnProbe(1, columns=slice(0, 8)),
    "linear": LinearProbe(
        {"a": slice(0, 4), "b": slice(0, 8)}, LinearSettings(learning_rates=(0.1, 1.0), iterations=30)
    ),
    "logistic": LogisticProbe(LogisticSettings(cs=(0.1, 1.0)), columns=slice(0, 8)),
}


@pytest.mark.parametrize("name", PROBES)
def test_probes_learn(name):
    samples, other = clusters("samples", 90, groups=15), clusters("other", 30)
    folds = make_folds(samples, count=3)
    results = cross_validate(samples, PROBES[name], folds, num_classes=3, device=CPU, external={"other": other})
    assert list(results) == [CROSS_VALIDATION, "other"]
    for found in results.values():
        assert len(found.metrics) == 3
        assert min(fold["acc"] for fold in found.metrics) > 0.8
    pooled = results[CROSS_VALIDATION].scores
    right = [fold["acc"] * len(f.test) for fold, f in zip(results[CROSS_VALIDATION].metrics, folds)]
    assert classification_metrics(pooled, samples.labels)["acc"] == pytest.approx(sum(right) / 90, abs=1e-6)


def test_no_model_has_seen_what_it_scores():
    """Labels that nothing explains: the nearest neighbour knows those that it has seen, and only those."""
    generator = torch.Generator().manual_seed(0)
    samples = clusters("samples", 300)._replace(labels=torch.randint(3, (300,), generator=generator))
    results = cross_validate(
        samples, KnnProbe(1), make_folds(samples), num_classes=3, device=CPU, external={"seen": samples}
    )
    assert sum(fold["acc"] for fold in results[CROSS_VALIDATION].metrics) / 5 < 0.45
    assert all(0.8 < fold["acc"] < 0.95 for fold in results["seen"].metrics)
    assert results["seen"].scores is None


def test_a_probe_reads_its_columns_only():
    train = clusters("samples", 60)
    spoiled = Features(torch.cat((train.values, torch.full((60, 2), torch.nan)), dim=1), train.labels)
    for probe in PROBES.values():
        scores = probe(spoiled, spoiled.values, num_classes=3, device=CPU)
        assert scores.isfinite().all()
        assert scores.shape == (60, 3)
