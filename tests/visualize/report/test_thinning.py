"""A thinned curve shows every extreme."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.visualize.report.thinning import thin


def test_a_short_curve_stays_what_it_is():
    x, y = np.arange(6), np.arange(6) ** 2.0
    band = thin(x, y, y, y, bins=3)
    assert band.per_point == 1
    for found in (band.middle, band.low, band.high):
        np.testing.assert_array_equal(found, y)


@given(st.integers(7, 60), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_every_bin_has_its_median_and_extremes(count, bins, seed):
    y = np.random.default_rng(seed).normal(size=count)
    band = thin(np.arange(count), y, y, y, bins=bins)
    edges = [count * i // bins for i in range(bins + 1)]
    parts = [y[start:end] for start, end in pairwise(edges)]
    np.testing.assert_array_equal(band.middle, list(map(np.median, parts)))
    np.testing.assert_array_equal(band.low, list(map(np.min, parts)))
    np.testing.assert_array_equal(band.high, list(map(np.max, parts)))
    assert band.per_point == max(map(len, parts))
    assert (np.diff(band.x) > 0).all()


def test_one_spike_among_many_is_seen():
    y = np.zeros(100_000)
    y[31_415] = 9.0
    band = thin(np.arange(len(y)), y, y, y, bins=200)
    assert band.high.max() == 9.0
    assert band.x[band.high.argmax()] == pytest.approx(31_415, abs=500)


def test_an_interval_widens_the_band_and_gaps_stay():
    y = np.array([1.0, 2.0, np.nan, np.nan, 5.0, 6.0])
    low, high = y - 1, np.array([9.0, np.nan, np.nan, np.nan, 7.0, 8.0])
    band = thin(np.arange(6), y, low, high, bins=2)
    np.testing.assert_array_equal(band.low, [0.0, 4.0])
    np.testing.assert_array_equal(band.high, [9.0, 8.0])
    gap = thin(np.arange(6), y, y, y, bins=1).middle
    assert gap.tolist() == [3.5]
    hole = np.where(np.arange(9) // 3 == 1, np.nan, 1.0)
    np.testing.assert_array_equal(thin(np.arange(9), hole, hole, hole, bins=3).middle, [1, np.nan, 1])
