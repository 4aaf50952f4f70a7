"""The k-NN vote against a loop, and metrics against scikit-learn."""

import math

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn_metrics
from torch.utils.data import TensorDataset

from dinov2.eval.features import Features, extract_features
from dinov2.eval.knn_votes import KnnSettings, evaluate_knn, few_shot, knn_vote
from dinov2.eval.metrics import classification_metrics


def unit(rows: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(rows, 6, generator=generator), dim=1)


def test_vote_against_a_loop():
    query, test, labels = unit(30, 0), unit(7, 1), torch.arange(30) % 4
    votes = knn_vote(Features(query, labels), test, nb_knn=[3, 9], temperature=0.2, batch_size=2)
    for row in range(7):
        similarity = [float(test[row] @ q) for q in query]
        nearest = sorted(range(30), key=lambda i: -similarity[i])[:9]
        total = sum(math.exp(similarity[i] / 0.2) for i in nearest)
        for k in (3, 9):
            expected = [0.0] * 4
            for i in nearest[:k]:
                expected[int(labels[i])] += math.exp(similarity[i] / 0.2) / total
            assert votes[k][row].tolist() == pytest.approx(expected, abs=1e-5)


def test_k_larger_than_the_query_set(caplog):
    query = Features(unit(5, 0), torch.tensor([0, 1, 0, 1, 1]))
    votes = knn_vote(query, unit(3, 1), nb_knn=[2, 50])
    assert votes[50].sum(1).tolist() == pytest.approx([1.0] * 3)
    assert "more than the 5 query samples" in caplog.text


@pytest.mark.parametrize("classes", [2, 5])
def test_metrics_equal_scikit_learn(classes):
    rng = np.random.default_rng(classes)
    scores = rng.dirichlet(np.ones(classes), size=200)
    labels = rng.integers(0, classes, 200)
    ours = classification_metrics(torch.from_numpy(scores), torch.from_numpy(labels))
    predicted = scores.argmax(1)
    assert ours["acc"] == pytest.approx(sklearn_metrics.accuracy_score(labels, predicted))
    assert ours["bacc"] == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, predicted))
    expected = (
        sklearn_metrics.roc_auc_score(labels, scores[:, 1])
        if classes == 2
        else sklearn_metrics.roc_auc_score(labels, scores, multi_class="ovr")
    )
    assert ours["auc"] == pytest.approx(expected)


def test_metrics_with_one_class_only():
    ours = classification_metrics(torch.tensor([[0.9, 0.1], [0.4, 0.6]]), torch.tensor([0, 0]))
    assert ours["acc"] == 0.5
    assert math.isnan(ours["auc"])


def test_few_shot_takes_so_many_of_each_class():
    query = Features(unit(40, 0), torch.arange(40) % 4)
    chosen = few_shot(query, per_class=3, seed=1)
    assert torch.bincount(chosen.labels).tolist() == [3, 3, 3, 3]
    assert not torch.equal(chosen.values, few_shot(query, per_class=3, seed=2).values)
    scores = evaluate_knn(query, query, nb_knn=[1, 10], n_per_class_list=[-1, 3], n_tries=2)
    assert scores["acc_1"] == 1.0
    assert set(scores) == {f"{m}_{s}" for m in ("acc", "bacc", "auc") for s in ("1", "10", "1_3shot", "3_3shot")}


def test_features_come_in_data_set_order():
    images, labels = torch.arange(11.0)[:, None], torch.arange(11)
    found = extract_features(lambda x: x * 2, TensorDataset(images, labels), device=torch.device("cpu"), batch_size=4)
    assert torch.equal(found.values, images * 2)
    assert torch.equal(found.labels, labels)
