"""Logistic regression is scikit-learn's, on either backend; C is chosen on held-out samples."""

import numpy as np
import pytest
import torch
from eval_making import clusters
from ranks import run_ranks
from sklearn.linear_model import LogisticRegression

from dinov2.errors import UserError
from dinov2.eval.features import Features
from dinov2.eval.logistic import C_VALUES, LogisticFit, LogisticSettings, fit_logistic, fit_path, sweep

CPU = torch.device("cpu")
BACKENDS = ("sklearn", "torch")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("classes", [2, 4])
def test_probabilities_are_scikit_learns(backend, classes):
    train, test = (clusters(name, 240, classes=classes, noise=1.5) for name in ("train", "test"))
    cs = [0.001, 0.1, 10.0]
    settings = LogisticSettings(backend=backend, tol=1e-8)
    for c, model in zip(cs, fit_path(train, cs, num_classes=classes, device=CPU, settings=settings)):
        theirs = LogisticRegression(C=c, tol=1e-8, max_iter=1000).fit(train.values.double(), train.labels)
        np.testing.assert_allclose(
            model.scores(test.values), theirs.predict_proba(test.values.double()), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_within_half_a_point_of_scikit_learn(backend):
    """With C chosen on the same held-out samples."""
    train, val, test = (clusters(name, 400, classes=4, width=16, noise=2.5) for name in ("train", "val", "test"))
    fit = fit_logistic(
        train,
        num_classes=4,
        device=CPU,
        settings=LogisticSettings(backend=backend),
        held_out=val,
        refit_on_both=False,
    )
    theirs = LogisticRegression(C=fit.best_c, max_iter=1000).fit(train.values, train.labels)
    ours = (fit.model.scores(test.values).argmax(1) == test.labels).double().mean()
    assert float(ours) == pytest.approx(theirs.score(test.values, test.labels), abs=0.005)


@pytest.mark.parametrize("backend", BACKENDS)
def test_float32_on_request(backend):
    train = clusters("train", 240, classes=4, noise=1.5)
    exact, rounded = (
        next(fit_path(train, [1.0], num_classes=4, device=CPU, settings=LogisticSettings(backend=backend, dtype=dtype)))
        for dtype in ("float64", "float32")
    )
    assert (exact.weight.dtype, rounded.weight.dtype) == (torch.float64, torch.float32)
    torch.testing.assert_close(rounded.weight.double(), exact.weight, atol=1e-2, rtol=0)


def test_a_class_that_was_not_trained_on_is_never_predicted():
    train = clusters("train", 90)
    train = train._replace(labels=torch.tensor([0, 2, 3])[train.labels])
    (model,) = fit_path(train, [1.0], num_classes=5, device=CPU, settings=LogisticSettings())
    scores = model.scores(train.values)
    assert scores[:, [1, 4]].abs().max() == 0
    assert (scores.argmax(1) == train.labels).double().mean() > 0.9


def test_one_class():
    train = clusters("train", 30)._replace(labels=torch.ones(30, dtype=torch.int64))
    with pytest.raises(UserError, match="30 samples to train on are all of one class"):
        next(fit_path(train, [1.0], num_classes=3, device=CPU, settings=LogisticSettings()))


def test_c_is_the_best_on_held_out_samples_and_the_fit_uses_all():
    train = clusters("train", 120, width=40, noise=3.0, groups=30)
    settings = LogisticSettings(cs=C_VALUES[::4])
    fit = fit_logistic(train, num_classes=3, device=CPU, settings=settings)
    assert list(fit.scores) == pytest.approx(C_VALUES[::4])
    assert fit.scores[fit.best_c].value == max(score.value for score in fit.scores.values())
    (expected,) = fit_path(train, [fit.best_c], num_classes=3, device=CPU, settings=settings)
    np.testing.assert_allclose(fit.model.scores(train.values), expected.scores(train.values), atol=1e-3)


def test_of_equally_accurate_values_the_likelier_is_chosen():
    train, val = clusters("train", 60, noise=0.1), clusters("val", 60, noise=0.1)
    fit = fit_logistic(train, num_classes=3, device=CPU, held_out=val)
    perfect = [c for c, score in fit.scores.items() if score.value == 1.0]
    assert len(perfect) > 10
    assert fit.best_c == max(perfect, key=lambda c: fit.scores[c].log_likelihood)


def sweep_of_rank() -> dict[float, tuple[float, float]]:
    train, val = clusters("train", 60, noise=2), clusters("val", 60, noise=2)
    found = sweep(train, val, num_classes=3, device=CPU, settings=LogisticSettings())
    return {c: tuple(score) for c, score in found.items()}


def test_any_number_of_ranks_sweeps_alike():
    expected = sweep_of_rank()
    assert all(found == expected for found in run_ranks(sweep_of_rank, 2))
    assert list(expected) == sorted(C_VALUES)


def test_more_features_than_are_read():
    train = clusters("train", 60)
    fit = fit_logistic(train.columns(slice(2, 5)), num_classes=3, device=CPU)
    assert fit.model.weight.shape == (3, 3)
    assert isinstance(train, Features)


@pytest.mark.parametrize(
    ("tried", "best", "end"),
    [
        ((0.1, 1.0, 10.0), 10.0, "largest"),
        ((0.1, 1.0, 10.0), 0.1, "smallest"),
        ((0.1, 1.0, 10.0), 1.0, ""),
        ((1.0,), 1.0, ""),  # nothing was chosen
    ],
)
def test_a_best_c_at_the_end_of_the_grid(tried, best, end):
    assert LogisticFit(None, best, dict.fromkeys(tried)).end_of_grid == end
