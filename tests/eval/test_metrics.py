"""Every figure is scikit-learn's, also where classes are missing."""

import math
import warnings

import numpy as np
import pytest
import torch
from sklearn import metrics as sk

from dinov2.eval.metrics import among_five, classification_metrics, classification_report

# Classes, those that are true somewhere, and a class that is never predicted.
CASES = {
    "binary": (2, [0, 1], None),
    "five classes": (5, [0, 1, 2, 3, 4], None),
    "eight classes": (8, list(range(8)), None),
    "a class that is never true": (5, [0, 1, 3, 4], None),
    "a class that is never predicted": (4, [0, 1, 2, 3], 2),
    "a class that is neither": (6, [0, 1, 3, 4], 2),
    "binary, one class": (2, [1], None),
}


def make_case(name: str) -> tuple[np.ndarray, np.ndarray]:
    """Scores (n, C) whose rows do not sum to 1, and labels (n,)."""
    count, present, never_predicted = CASES[name]
    rng = np.random.default_rng(len(name))
    labels = rng.choice(present, 300)
    scores = rng.dirichlet(np.ones(count), 300) + 0.3 * np.eye(count)[labels]
    if never_predicted is not None:
        scores[:, never_predicted] *= 0.01
    return scores, labels


@pytest.mark.parametrize("name", CASES)
def test_figures_are_scikit_learns(name):
    scores, labels = make_case(name)
    found = classification_metrics(torch.from_numpy(scores), torch.from_numpy(labels))
    predicted, count, present = scores.argmax(axis=1), scores.shape[1], np.unique(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of classes that are predicted and never true
        expected = {
            "acc": sk.accuracy_score(labels, predicted),
            "bacc": sk.balanced_accuracy_score(labels, predicted),
            "kappa": sk.cohen_kappa_score(labels, predicted),
        }
        for kind, function in (("f1", sk.f1_score), ("precision", sk.precision_score), ("recall", sk.recall_score)):
            for average in ("macro", "weighted"):
                expected[f"{kind}_{average}"] = function(labels, predicted, average=average, zero_division=0)
    if count >= 6:
        expected["top5"] = sk.top_k_accuracy_score(labels, scores, k=5, labels=range(count))
    assert {key: value for key, value in found.items() if key != "auc"} == pytest.approx(expected, abs=1e-6)
    rescaled = scores / scores.sum(axis=1, keepdims=True)
    if len(present) < 2:
        assert math.isnan(found["auc"])
    elif count == 2:
        assert found["auc"] == pytest.approx(sk.roc_auc_score(labels, rescaled[:, 1]), abs=1e-6)
    else:
        areas = [sk.roc_auc_score(labels == label, rescaled[:, label]) for label in present]
        assert found["auc"] == pytest.approx(np.mean(areas), abs=1e-6)


def test_area_with_equal_scores():
    """As k-NN votes have them."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 500)
    scores = np.round(rng.random(500) * 0.7 + labels * 0.3, 1)
    found = classification_metrics(torch.from_numpy(np.stack([1 - scores, scores], 1)), torch.from_numpy(labels))
    assert found["auc"] == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-6)


def test_report():
    scores, labels = make_case("a class that is neither")
    report = classification_report(torch.from_numpy(scores), torch.from_numpy(labels), list("abcdef"))
    predicted = scores.argmax(axis=1)
    assert report.confusion == sk.confusion_matrix(labels, predicted, labels=range(6)).tolist()
    columns = sk.precision_recall_fscore_support(labels, predicted, labels=range(6), zero_division=0)
    for number, one in enumerate(report.classes):
        assert (one.name, one.support) == ("abcdef"[number], columns[3][number])
        assert (one.precision, one.recall, one.f1) == pytest.approx(
            [column[number] for column in columns[:3]], abs=1e-6
        )
        assert math.isnan(one.auc) is (number not in labels)


def test_the_first_of_equal_scores_is_predicted():
    scores = torch.tensor([[0.5, 0.5], [0.0, 0.0]])
    assert classification_metrics(scores, torch.tensor([0, 0]))["acc"] == 1.0


def test_five_of_equal_scores_are_the_first_ones():
    """Neighbours of one class leave the others at 0: classes 7 and 0 to 3 are the five."""
    scores = torch.zeros(10, 10)
    scores[:, 7] = 1
    metrics = classification_metrics(scores, torch.arange(10))
    assert metrics["top5"] == 0.5
    assert among_five(scores, torch.arange(10)).tolist() == [True] * 4 + [False] * 3 + [True] + [False] * 2
