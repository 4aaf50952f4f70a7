"""Drawing by group: against a simulation that lists every position, and in its statistics."""

from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest
from omegaconf import OmegaConf

from dinov2.data.groups import Groups
from dinov2.data.weighted_order import SMALL_GROUP, WeightedOrder, check_weights, group_weights
from dinov2.errors import UserError


def groups_of_sizes(*sizes: int) -> Groups:
    """Consecutive groups g0, g1, ..."""
    counts = np.array(sizes)
    runs = np.column_stack([np.arange(len(counts)), np.cumsum(counts) - counts, counts])
    return Groups(runs[counts > 0], [f"g{number}" for number in range(len(counts))])


def scattered(seed: int, *sizes: int) -> Groups:
    """Groups whose samples are all mixed up."""
    column = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)), sizes))
    return Groups.from_column(column, {number: f"g{number}" for number in range(len(sizes))})


def simulate(order: WeightedOrder, groups: Groups) -> tuple[list[int], dict[int, list[int]]]:
    """Groups of all positions, and what each group was asked for, in order."""
    samples = order(np.arange(order.size))
    visits = defaultdict(list)
    numbers = groups.of(samples).tolist()
    for number, sample in zip(numbers, samples.tolist(), strict=True):
        visits[number].append(sample)
    return numbers, visits


GROUPS = scattered(0, 3, 1, 700, 40, 256, 0, 300, 12)
WEIGHTS = {
    "equal": np.ones(8),
    "by size": GROUPS.sizes.astype(float),
    "some left out": np.array([0, 2.5, 1, 0, 0.01, 5, 0, 1e-30]),
    "one alone": np.array([0, 0, 0, 1.0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize("rule", WEIGHTS)
def test_each_group_gives_all_its_samples_before_any_again(rule):
    order = WeightedOrder(GROUPS, WEIGHTS[rule], 7, 0, 2)
    numbers, visits = simulate(order, GROUPS)
    assert order.groups(np.arange(order.size)).tolist() == numbers
    assert sum(map(len, visits.values())) == GROUPS.size == order.size
    for number, samples in visits.items():
        size = int(GROUPS.sizes[number])
        own = set(np.flatnonzero(GROUPS.of(np.arange(GROUPS.size)) == number).tolist())
        rounds = [samples[first : first + size] for first in range(0, len(samples), size)]
        assert all(set(one) == own for one in rounds[:-1])
        assert len(set(rounds[-1])) == len(rounds[-1]) and set(rounds[-1]) <= own
        if size > 10 and len(rounds) > 2:
            assert rounds[0] != rounds[1]  # every round in another order


@pytest.mark.parametrize("rule", WEIGHTS)
def test_groups_come_as_often_as_they_weigh(rule):
    shares = WEIGHTS[rule] * (GROUPS.sizes > 0)
    shares /= shares.sum()
    counts = np.bincount(WeightedOrder(GROUPS, WEIGHTS[rule], 1)(np.arange(500)), minlength=GROUPS.size)
    by_group = np.bincount(GROUPS.of(np.arange(GROUPS.size)), counts, minlength=8)
    assert (np.abs(by_group - 500 * shares) < 4).all()


@pytest.mark.parametrize("sizes", [[40, 30, 15, 10, 5], np.random.default_rng(1).integers(1, 1000, 100).tolist()])
@pytest.mark.parametrize("ranks", [1, 2, 4, 8, 16, 32, 64])
def test_every_stretch_of_every_rank_has_each_group_in_proportion(sizes, ranks):
    groups = groups_of_sizes(*(10_000 * np.array(sizes)))
    weights = np.array(sizes, float)
    numbers = WeightedOrder(groups, weights, 3, 0, 0).groups(np.arange(64_000))
    for rank in {0, ranks - 1}:
        mine = numbers[rank::ranks]
        counts = np.cumsum(mine[:, None] == np.arange(len(sizes)), axis=0)
        surplus = counts - weights / weights.sum() * np.arange(1, len(mine) + 1)[:, None]
        worst = np.ptp(surplus, axis=0).max()  # of all stretches: each is the difference of two that begin at 0
        assert worst < (6 if ranks == 1 else 12)


def test_a_sample_depends_on_its_position_only():
    order = WeightedOrder(GROUPS, WEIGHTS["equal"], 5, 0, 1)
    expected = order(np.arange(order.size))
    assert expected.dtype == np.int64
    assert [order.item(position) for position in (700, 0, 1311, 5)] == expected[[700, 0, 1311, 5]].tolist()
    backwards = WeightedOrder(GROUPS, WEIGHTS["equal"] * 17, 5, 0, 1)(np.arange(order.size)[::-1])
    assert (backwards[::-1] == expected).all()
    for world, workers in ((1, 2), (2, 1), (3, 4)):
        found = np.full(order.size, -1)
        for rank in range(world):
            for worker in range(workers):
                mine = np.arange(rank + worker * world, order.size, world * workers)
                found[mine] = WeightedOrder(GROUPS, WEIGHTS["equal"], 5, 0, 1)(mine)
        assert (found == expected).all()


def test_epochs_and_seeds_have_nothing_in_common():
    groups = scattered(3, *range(20, 120))
    samples = np.arange(groups.size)
    orders = {key: WeightedOrder(groups, np.ones(100), *key) for key in ((0, 0), (0, 1), (1, 0), (1, 1))}
    drawn = {key: order(samples) for key, order in orders.items()}
    for first, one in drawn.items():
        for second, other in drawn.items():
            if first < second:
                assert np.mean(one == other) < 0.003
                assert np.mean(groups.of(one) == groups.of(other)) < 0.1  # by chance 0.01, give or take the spread
                assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_an_epoch_is_not_another_one_with_groups_exchanged():
    groups = groups_of_sizes(1000, 1000)
    first = [WeightedOrder(groups, np.ones(2), 0, epoch).groups(np.arange(60)) for epoch in range(8)]
    assert len({tuple(numbers ^ numbers[0]) for numbers in first}) == 8

    groups = groups_of_sizes(*[40] * 50)
    follow = [
        set(pairwise(WeightedOrder(groups, np.ones(50), 0, epoch).groups(np.arange(2000)).tolist())) for epoch in (0, 1)
    ]
    assert len(follow[0] & follow[1]) < 0.2 * len(follow[0])  # neither do the same groups come after each other


def test_every_sample_of_a_group_is_equally_likely_at_every_visit():
    """Chi-square of (visit, sample) over many keys, for an order that is sorted and one that is a network."""
    size, keys = 6, 800
    groups = groups_of_sizes(size, 2 * SMALL_GROUP)
    small, large = np.zeros((size, size)), np.zeros((4, 8))
    for key in range(keys):
        samples = WeightedOrder(groups, np.ones(2), key)(np.arange(2 * size + 6))
        small[np.arange(size), samples[samples < size][:size]] += 1
        large[np.arange(4), (samples[samples >= size][:4] - size) * 8 // (2 * SMALL_GROUP)] += 1
    for counts, degrees in ((small, (size - 1) ** 2), (large, 4 * 7)):
        expected = keys / counts.shape[1]
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


def test_uniform_over_samples_with_power_one():
    groups = groups_of_sizes(5, 50, 500, 445)
    counts = Counter()
    for epoch in range(20):
        counts.update(WeightedOrder(groups, group_weights(groups, 1), 0, epoch)(np.arange(1000)).tolist())
    assert len(counts) == 1000
    by_group = [sum(counts[i] for i in range(*ends)) for ends in ((0, 5), (5, 55), (55, 555), (555, 1000))]
    assert np.abs(np.array(by_group) - 20 * groups.sizes).max() < 40
    assert max(counts.values()) <= 20 + 20 and min(counts[i] for i in range(55, 1000)) >= 17


def test_a_billion_samples_need_no_list():
    groups = groups_of_sizes(10**9, 5, 10**6)
    order = WeightedOrder(groups, np.array([1, 1e-9, 1e-3]), 1, 2)
    samples = order(np.linspace(0, order.size - 1, 500).astype(np.int64))
    assert len(np.unique(samples)) == 500
    assert samples.min() >= 0 and samples.max() < order.size
    with pytest.raises(ValueError, match=r"0 \.\. 1001000004"):
        order.item(order.size)
    with pytest.raises(ValueError, match="positions"):
        order.item(-1)


def test_weights_by_rule():
    groups = groups_of_sizes(4, 0, 9)
    assert group_weights(groups, "equal").tolist() == [1, 1, 1]
    assert group_weights(groups, 0.5).tolist() == [2, 0, 3]
    assert group_weights(groups, 1).tolist() == [4, 0, 9]
    assert group_weights(groups, -1).tolist() == [0.25, 0, 1 / 9]
    assert group_weights(groups, {"g2": 0.5, "g1": 0}).tolist() == [1, 0, 0.5]


def test_an_unknown_group_is_named_with_the_nearest():
    groups = Groups([[0, 0, 2], [1, 2, 2]], ["TCGA-BRCA", "CPTAC\n"])
    with pytest.raises(UserError, match='there is no group "TCGA_BRCA": did you mean "TCGA-BRCA"'):
        group_weights(groups, {"TCGA_BRCA": 2})
    with pytest.raises(UserError, match=r'there is no group "x"\. There are "TCGA-BRCA", "CPTAC\\n"'):
        group_weights(groups, {"x": 2})


@pytest.mark.parametrize("rule", ["equl", None, True, [1, 2], "0.5", {"g1": "2"}, {"g1": None}, {"g1": False}])
def test_rules_that_are_none(rule):
    with pytest.raises(UserError, match=r"(cannot be weighed by .*|has the weight .*): expected "):
        group_weights(groups_of_sizes(4, 4), rule)


def test_rules_from_a_configuration():
    groups = Groups([[0, 0, 2], [1, 2, 2]], ["0", "1"])
    assert group_weights(groups, OmegaConf.create({"weights": {0: 3}}).weights).tolist() == [3, 1]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([1, -1, 2], '"g1" has the weight -1:'),
        ([float("nan"), 1, float("nan")], "so it is for 2 groups"),
        ([1, float("inf"), 1], '"g1" has the weight inf'),
        ([0, 0, 0], "nothing to draw"),
        ([0, 5, 0], "nothing to draw"),
    ],
)
def test_weights_that_cannot_be(weights, message):
    groups = groups_of_sizes(4, 0, 9)
    with pytest.raises(UserError, match=message):
        check_weights(groups, np.array(weights))
    with pytest.raises(UserError, match=message):
        WeightedOrder(groups, np.array(weights), 0)


def test_a_power_beyond_all_numbers_is_refused():
    groups = groups_of_sizes(4, 1000)
    with pytest.raises(UserError, match='"g1" has the weight inf'):
        check_weights(groups, group_weights(groups, 200))
    with pytest.raises(ValueError, match="weights of shape"):
        check_weights(groups, np.ones(3))


def test_weights_at_the_ends_of_what_numbers_can_be():
    groups = groups_of_sizes(4, 5, 6)
    for weights, drawn in (([1e308] * 3, {0, 1, 2}), ([1e-320] * 3, {0, 1, 2}), ([1, 1e-300, 1e-300], {0})):
        for key in range(6):  # which arc comes first
            samples = WeightedOrder(groups, np.array(weights), key)(np.arange(15))
            assert set(groups.of(samples).tolist()) == drawn
