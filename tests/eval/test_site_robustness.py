"""Prediction of the site and the share of neighbours that speak for the class, against loops over all pairs."""

import math

import numpy as np
import pytest
import torch
from golden import normal
from ranks import run_ranks
from sklearn.metrics import balanced_accuracy_score

from dinov2.eval import neighbours
from dinov2.eval.features import Features
from dinov2.eval.knn_votes import KnnSettings
from dinov2.eval.site_robustness import evaluate_sites, site_robustness


def make_sets(*, site_strength: float, class_strength: float = 1.0) -> tuple[Features, Features]:
    """Query and test tiles of 2 classes, 3 sites and 12 slides, which are on both sides."""
    sets = []
    for tag, size in (("query", 90), ("test", 48)):
        slides = torch.arange(size) * 12 // size
        labels, sites = torch.arange(size) % 2, slides % 3
        values = normal(tag, (size, 8)) + 3 * normal("slides", (12, 8))[slides]
        values += class_strength * normal("classes", (2, 8))[labels] + site_strength * normal("sites", (3, 8))[sites]
        sets.append(Features(values, labels, slides, sites))
    return sets[0], sets[1]


def naive(query: Features, test: Features, k: int) -> tuple[float, float, float]:
    """Balanced accuracy of a majority vote for the site, the ratio, and the ratio over all possible neighbours."""
    directions = torch.nn.functional.normalize(query.values.double(), dim=1)
    found, speak, could_speak = [], [0, 0], [0, 0]
    for value, label, group, site in zip(*test):
        cosines = directions @ value.double()
        near = [int(i) for i in cosines.argsort(descending=True) if query.groups[i] != group]
        found.append(int(torch.bincount(query.sites[near[:k]], minlength=3).argmax()))
        for rows, counts in ((near[:k], speak), (near, could_speak)):
            for i in rows:
                counts[0] += int(query.labels[i] == label and query.sites[i] != site)
                counts[1] += int(query.labels[i] != label and query.sites[i] == site)
    return balanced_accuracy_score(test.sites, found), speak[0] / sum(speak), could_speak[0] / sum(could_speak)


@pytest.mark.parametrize("k", [1, 5, 20, 90])
def test_against_loops(monkeypatch, k):
    """Pieces are so small that some have no possible neighbour, and of the last k some do not exist."""
    for name, size in (("QUERY_PIECE", 9), ("TEST_PIECE", 5), ("TEST_BLOCK", 20)):
        monkeypatch.setattr(neighbours, name, size)
    query, test = make_sets(site_strength=1.0)
    found = site_robustness(query, test, KnnSettings(nb_knn=[3, k], vote="majority"))[k]
    expected = naive(query, test, k)
    assert (found.bacc, found.ratio, found.ratio_by_chance) == pytest.approx(expected, abs=1e-12)
    assert found.bacc_by_chance == pytest.approx(1 / 3)


def test_figures_say_what_features_are_made_of():
    by_class, by_site = make_sets(site_strength=0.0, class_strength=20), make_sets(site_strength=20, class_strength=0)
    scores = [evaluate_sites(*sets, KnnSettings(nb_knn=[10])) for sets in (by_class, by_site)]
    assert set(scores[0]) == {"site_bacc_10", "site_ratio_10"}
    assert scores[0]["site_ratio_10"] == 1.0
    assert scores[0]["site_bacc_10"] < 0.7
    assert scores[1] == {"site_bacc_10": 1.0, "site_ratio_10": 0.0}


def test_without_groups_a_slide_is_near_itself():
    query, test = make_sets(site_strength=0)
    apart, together = (
        site_robustness(query._replace(groups=groups), test, KnnSettings(nb_knn=[1]))[1]
        for groups in (query.groups, None)
    )
    assert together.bacc > 0.9
    assert apart.bacc < 0.6


def test_figures_that_do_not_exist():
    query, test = make_sets(site_strength=1)
    one_slide_a_site = [part._replace(groups=part.sites) for part in (query, test)]
    found = site_robustness(*one_slide_a_site, KnnSettings(nb_knn=[5]))[5]
    assert math.isnan(found.bacc)
    assert math.isnan(found.bacc_by_chance)
    assert found.ratio == 1.0
    one_class_one_site = [Features(part.values, 0 * part.labels, part.groups, 0 * part.sites) for part in (query, test)]
    found = site_robustness(*one_class_one_site, KnnSettings(nb_knn=[5]))[5]
    assert np.isnan([found.bacc, found.bacc_by_chance, found.ratio, found.ratio_by_chance]).all()
    one_group = [part._replace(groups=0 * part.groups) for part in (query, test)]  # nobody has a neighbour
    found = site_robustness(*one_group, KnnSettings(nb_knn=[5]))[5]
    assert np.isnan([found.bacc, found.bacc_by_chance, found.ratio, found.ratio_by_chance]).all()


def test_a_site_without_query_tiles_does_not_count():
    query, test = make_sets(site_strength=20)
    query = query.select(torch.where(query.sites > 0)[0])
    found = site_robustness(query, test, KnnSettings(nb_knn=[5]))[5]
    assert (found.bacc, found.bacc_by_chance) == (1.0, 0.5)


def test_sites_that_are_not_known():
    query, test = make_sets(site_strength=1)
    with pytest.raises(ValueError, match="only where sites are known"):
        evaluate_sites(query._replace(sites=None), test, KnnSettings())


def figures_of_rank() -> dict[str, float]:
    neighbours.QUERY_PIECE, neighbours.TEST_PIECE = 16, 7
    return evaluate_sites(*make_sets(site_strength=1), KnnSettings(nb_knn=[1, 20]))


def test_two_ranks_give_the_same_figures():
    expected = run_ranks(figures_of_rank, 1)[0]
    assert run_ranks(figures_of_rank, 2) == [expected, expected]
