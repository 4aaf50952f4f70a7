"""Points on the circle: counted without listing them, and evenly spread."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinov2.data.kronecker import CIRCLE, KroneckerSequence

PLACES = st.integers(0, CIRCLE - 1)


@settings(max_examples=200, deadline=None)
@given(shift=PLACES, first=PLACES, length=st.one_of(st.integers(0, 2**60), PLACES), num_points=st.integers(0, 300))
def test_counting_is_as_counting_one_by_one(shift, first, length, num_points):
    sequence, stop = KroneckerSequence(shift), min(first + length, CIRCLE)
    expected = sum(first <= sequence.point(k) < stop for k in range(num_points))
    assert sequence.count(num_points, first=first, stop=stop) == expected


def test_the_whole_circle_has_all_points():
    assert KroneckerSequence(12345).count(10**9 + 7, first=0, stop=CIRCLE) == 10**9 + 7


def test_counts_far_out_add_up():
    sequence, edges = KroneckerSequence(99), [0, 1, 2**40, 2**62 + 11, 2**63, CIRCLE - 5, CIRCLE]
    far = 2**45 + 3
    counts = [sequence.count(far, first=a, stop=b) for a, b in pairwise(edges)]
    assert sum(counts) == far
    assert abs(counts[3] - far * (2**63 - 2**62 - 11) / CIRCLE) < 20
    before = [sequence.count(far - 1, first=a, stop=b) for a, b in pairwise(edges)]
    point = sequence.point(far - 1)
    changed = [after - prior for after, prior in zip(counts, before, strict=True)]
    assert changed == [int(a <= point < b) for a, b in pairwise(edges)]


def test_many_points_at_once():
    sequence = KroneckerSequence(CIRCLE - 3)
    ks = np.array([0, 1, 2, 10**9, 2**40])
    assert sequence.points(ks).tolist() == [sequence.point(k) for k in ks.tolist()]
    assert len(set(sequence.points(np.arange(10**5)).tolist())) == 10**5


@pytest.mark.parametrize("stride", [1, 2, 4, 8, 16, 32, 64, 128, 256])
def test_every_stretch_of_every_share_is_spread_evenly(stride):
    """The largest surplus of points that any arc has among the first m of every stride-th, for several m."""
    places = KroneckerSequence(0).points(np.arange(10_000) * stride) / CIRCLE
    for num_points in (10, 100, 1000, 10_000):
        ranks = np.arange(num_points) - num_points * np.sort(places[:num_points])
        assert ranks.max() - ranks.min() + 1 < 16
