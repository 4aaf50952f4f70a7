"""Votes against a loop and scikit-learn, few-shot choices, and the figures that training logs."""

import math

import numpy as np
import pytest
import torch
from eval_making import clusters, unit
from ranks import run_ranks
from sklearn.neighbors import KNeighborsClassifier

from dinov2.eval.features import Features
from dinov2.eval.knn_votes import KnnCase, KnnSettings, few_shot, knn_scores, knn_vote


def test_weighted_vote_against_a_loop():
    query, test, labels = unit("query", 30), unit("test", 7), torch.arange(30) % 4
    votes = knn_vote(Features(3 * query, labels), 2 * test, nb_knn=[3, 9], num_classes=4, temperature=0.2)
    for row in range(7):
        similarity = [float(test[row] @ q) for q in query]
        nearest = sorted(range(30), key=lambda i: -similarity[i])[:9]
        total = sum(math.exp(similarity[i] / 0.2) for i in nearest)
        for k in (3, 9):
            expected = [0.0] * 4
            for i in nearest[:k]:
                expected[int(labels[i])] += math.exp(similarity[i] / 0.2) / total
            assert votes[k][row].tolist() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize("k", [1, 4, 20])
def test_majority_vote_is_scikit_learns(k):
    """Even numbers of neighbours have ties, which the lowest class number wins."""
    query, test = clusters("query", 200, noise=2), clusters("test", 60, noise=2)
    classifier = KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(query.values, query.labels)
    votes = knn_vote(query, test.values, nb_knn=[k], num_classes=3, vote="majority")[k]
    assert np.array_equal(votes.argmax(dim=1), classifier.predict(test.values))
    assert np.array_equal(votes / k, classifier.predict_proba(test.values).astype(np.float32))


def test_k_larger_than_the_query_set(caplog):
    query = Features(unit("query", 5), torch.tensor([0, 1, 0, 1, 1]))
    votes = knn_vote(query, unit("test", 3), nb_knn=[2, 50], num_classes=2)
    assert votes[50].sum(1).tolist() == pytest.approx([1.0] * 3)
    assert "k = [50] is more than the 5 query samples" in caplog.text


def test_few_shot_is_dinov2s_choice():
    query = clusters("query", 40, classes=4)
    chosen = few_shot(query, per_class=3, seed=1)
    assert torch.bincount(chosen.labels).tolist() == [3, 3, 3, 3]
    torch.manual_seed(1)
    rows = [torch.arange(label, 40, 4)[torch.randperm(10)[:3]] for label in range(4)]
    assert torch.equal(chosen.values, query.values[torch.cat(rows).sort().values])
    assert not torch.equal(chosen.values, few_shot(query, per_class=3, seed=2).values)


def test_few_shot_leaves_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    few_shot(clusters("query", 40), per_class=3, seed=1)
    assert torch.equal(torch.rand(1), expected)


def test_cases_and_tries():
    query, settings = clusters("query", 60), KnnSettings(nb_knn=[1, 2, 10], n_per_class_list=[-1, 3], n_tries=2)
    scores = knn_scores(query, query.values, settings, num_classes=3)
    assert {case: len(tries) for case, tries in scores.items()} == {
        **{KnnCase(-1, k): 1 for k in (1, 2, 10)},
        **{KnnCase(3, k): 2 for k in (1, 2, 3)},
    }


def votes_of_rank() -> np.ndarray:
    query, test = clusters("query", 300, noise=2), clusters("test", 40, noise=2)
    return knn_vote(query, test.values, nb_knn=[20], num_classes=3)[20].numpy()


def test_two_ranks_give_the_same_bits():
    expected = votes_of_rank()
    assert all(np.array_equal(found, expected) for found in run_ranks(votes_of_rank, 2))
