"""Scores by name of features on a query and a test set."""

import math

import pytest
import torch
from eval_making import clusters
from ranks import run_ranks

from dinov2.eval.features import Features
from dinov2.eval.knn_votes import KnnSettings, knn_scores
from dinov2.eval.linear_heads import LinearSettings
from dinov2.eval.metrics import classification_metrics
from dinov2.eval.pair_scores import PairSettings, score_pair
from dinov2.eval.site_robustness import evaluate_sites

KNN = KnnSettings(nb_knn=[1, 10])
CPU = torch.device("cpu")


def scored(query: Features, test: Features, **options) -> dict[str, float]:
    settings = PairSettings(**{"knn": KNN, "resamples": 0, **options})
    return score_pair(query, test, settings, num_classes=3, device=CPU)


def test_figures_are_those_of_the_library():
    query, test = clusters("query", 60, noise=3), clusters("test", 40, noise=3)
    votes = knn_scores(query, test.values, KNN, num_classes=3)
    found = scored(query, test)
    for case, (scores,) in votes.items():
        expected = classification_metrics(scores, test.labels)
        assert found[f"acc_{case}"] == expected["acc"]
        assert found[f"bacc_{case}"] == expected["bacc"]
        assert found[f"auc_{case}"] == expected["auc"]
        assert found[f"f1_{case}"] == expected["f1_macro"]
    assert len(found) == 8


def test_few_query_tiles_are_averaged_over_tries():
    query = clusters("query", 60, noise=4)
    few = KnnSettings(nb_knn=[1, 10], n_per_class_list=[3], n_tries=2)
    found = scored(query, query, knn=few, resamples=20)
    assert set(found) == {f"{m}_{s}" for m in ("acc", "bacc", "auc", "f1") for s in ("1_3shot", "3_3shot")}
    tries = knn_scores(query, query.values, few, num_classes=3)[(3, 1)]
    figures = [classification_metrics(scores, query.labels)["acc"] for scores in tries]
    assert found["acc_1_3shot"] == pytest.approx(sum(figures) / 2)


def test_probes_see_their_part_of_the_features():
    """Of two blocks and the mean patch token only the last class token tells the classes."""
    width = 8
    samples = {name: clusters(name, 90, width=width, noise=0.5) for name in ("query", "test")}
    noise = {name: clusters(name, 90, width=3 * width).values for name in ("a", "b")}
    query, test = (
        one._replace(values=torch.cat([rest[:, :width], one.values, rest[:, width : 2 * width]], dim=1))
        for one, rest in zip(samples.values(), noise.values())
    )
    found = scored(
        query,
        test,
        probes=("knn", "linear", "log_regression"),
        n_last_blocks=(1, 2),
        linear=LinearSettings(iterations=60, batch_size=30),
    )
    alone = scored(samples["query"], samples["test"], probes=("knn", "log_regression"))
    assert all(found[name] == alone[name] for name in alone)
    assert found["linear_bacc"] > 0.9


def test_intervals_of_some_scores_by_slide():
    query, test = clusters("query", 60, noise=3), clusters("test", 90, noise=3, groups=9)
    found = scored(query, test, resamples=100, interval_k=10)
    assert {name for name in found if name.endswith(("_low", "_high"))} == {
        f"{metric}_10_{end}" for metric in ("acc", "bacc", "auc", "f1") for end in ("low", "high")
    }
    assert found["acc_10_low"] < found["acc_10"] < found["acc_10_high"]
    by_tile = scored(query, test._replace(groups=None), resamples=100, interval_k=10)
    assert by_tile["acc_10"] == found["acc_10"]
    assert by_tile["acc_10_low"] != found["acc_10_low"]


def test_a_figure_that_does_not_exist_is_left_out():
    query = clusters("query", 60)
    test = query.select(query.labels == 1)
    found = scored(query, test, resamples=10, interval_k=1)
    assert "auc_1" not in found
    assert not any(math.isnan(value) for value in found.values())


def test_sites_are_scored_where_they_are_known():
    query, test = (clusters(name, 60)._replace(sites=torch.arange(60) // 2 % 2) for name in ("query", "test"))
    found = scored(query, test)
    expected = evaluate_sites(query, test, KNN)
    assert list(found)[-4:] == list(expected) == ["site_bacc_1", "site_bacc_10", "site_ratio_1", "site_ratio_10"]
    assert all(found[name] == expected[name] for name in expected)
    assert "site_bacc_1" not in scored(query, test._replace(sites=None))


def scores_of_rank() -> dict[str, float]:
    query, test = clusters("query", 90, noise=2, groups=9), clusters("test", 40, noise=2, groups=8)
    linear = LinearSettings(iterations=10, batch_size=30)
    return scored(query, test, probes=("knn", "linear", "log_regression"), linear=linear, resamples=20, interval_k=1)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_all_ranks_get_the_scores_of_one():
    expected = scores_of_rank()
    assert run_ranks(scores_of_rank, 2) == [expected, expected]
