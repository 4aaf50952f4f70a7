"""Orders: DINOv2's exact sequences, and the permutation that needs no memory."""

from itertools import islice

import numpy as np
import pytest

from dinov2.data.permutation import Permutation
from dinov2.data.samplers import EpochSampler, InfiniteSampler, PositionSampler, ShardedInfiniteSampler


def first(sampler, count: int) -> str:
    return " ".join(str(int(index)) for index in islice(iter(sampler), count))


def infinite(n, **kwargs):
    return InfiniteSampler(sample_count=n, shuffle=True, **{"start": 0, "step": 1, **kwargs})


def sharded(n, **kwargs):
    return ShardedInfiniteSampler(sample_count=n, shuffle=True, **{"start": 0, "step": 1, **kwargs})


REFERENCE = [
    (InfiniteSampler(sample_count=5, start=1, step=2), "1 3 1 3 1 3"),
    (infinite(10), "4 1 7 5 3 9 0 8 6 2 1 3 6 8 0 2 5 7 4 9"),
    (infinite(10, start=1, step=2), "1 5 9 8 2 3 8 2 7 9 3 5 4 2 8 0 8 4 9 6"),
    (infinite(10, advance=13), "8 0 2 5 7 4 9 6 3 9 5 0 4 7 2 1 8 1 0 5"),
    (sharded(10), "3 6 0 8 7 5 1 2 9 4 6 8 1 3 7 4 0 2 9 5 3 9"),
    (sharded(11, step=2), "9 2 4 10 5 10 2 4 9 5 9 2 4 5 10 2 10 4 9 5 10 2"),
    (sharded(11, start=1, step=2), "1 3 8 7 0 8 7 3 0 1 7 3 8 0 1 8 0 1 3 7 3 8"),
    (sharded(10, use_new_shuffle_tensor_slice=True), "3 1 8 9 5 2 4 6 0 7 9 7 8 6 3 4 1 0 2 5 1 9"),
    (sharded(10, advance=12), "1 3 7 4 0 2 9 5 3 9"),
    (sharded(10, step=2, advance=12), "7 6 3 6 0 7 3 4 0 4 7 6 3"),
    (sharded(10, step=2), "6 0 7 4 3 4 0 7 6 3 6 0 7 3 4 0 4 7 6 3 4 0"),
    (sharded(10, seed=3750), "8 6 2 4 5 0 9 3 1 7 9 4 0 5 7 8 6 1 2 3 8 1"),
]


@pytest.mark.parametrize(("sampler", "expected"), REFERENCE)
def test_infinite_samplers_of_the_reference(sampler, expected):
    assert first(sampler, len(expected.split())) == expected
    assert first(sampler, len(expected.split())) == expected  # iterating again starts again


def test_epoch_sampler_of_the_reference():
    plain = EpochSampler(size=7, sample_count=5, start=0, step=2)
    assert first(plain, 9) == "0 2 4 1"
    assert len(plain) == 4
    expected = {0: {0: "2 3 4 4 1 1 0 3", 1: "0 1 0 4 3 2 3 2"}, 3: {0: "2 3 4 4 1 1 0 3", 2: "1 1 4 2 3 2 3 0"}}
    for seed, epochs in expected.items():
        sampler = EpochSampler(size=8, sample_count=5, shuffle=True, seed=seed, start=0, step=1)
        for epoch, order in epochs.items():
            sampler.set_epoch(epoch)
            assert first(sampler, 9) == order


@pytest.mark.parametrize("size", [1, 2, 3, 7, 255, 256, 257, 5000])
def test_permutation_is_a_bijection(size):
    order = Permutation(size, 3, 1)(np.arange(size))
    assert sorted(order.tolist()) == list(range(size))
    backwards = Permutation(size, 3, 1)(np.arange(size)[::-1])
    assert np.array_equal(order, backwards[::-1])  # a position's item does not depend on who else asks


@pytest.mark.thorough  # 4 s
def test_permutation_depends_on_its_key_and_is_uniform():
    size, keys = 16, 1000
    counts = np.zeros((size, size))
    for key in range(keys):
        counts[np.arange(size), Permutation(size, key)(np.arange(size))] += 1
    chi_square = ((counts - keys / size) ** 2 / (keys / size)).sum()
    degrees = (size - 1) ** 2
    assert abs(chi_square - degrees) < 5 * (2 * degrees) ** 0.5


def test_permutation_of_a_billion_needs_no_memory():
    items = Permutation(10**9, 0, 0)(np.arange(10**5) * 9973)
    assert len(np.unique(items)) == 10**5
    assert abs(items.mean() / 10**9 - 0.5) < 0.01
    with pytest.raises(ValueError, match="0 .. 9"):
        Permutation(10)(np.array([10]))


def test_positions_of_all_ranks_make_up_consecutive_batches():
    parts = [list(islice(PositionSampler(3, start=10, rank=rank, world_size=2), 6)) for rank in range(2)]
    assert parts == [[10, 11, 12, 16, 17, 18], [13, 14, 15, 19, 20, 21]]
    assert list(islice(PositionSampler(6, start=10), 12)) == list(range(10, 22))
