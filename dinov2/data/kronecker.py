"""Points on a circle that are spread evenly from the first to the last, and how many of them lay in an arc.

The points are those of a Kronecker sequence: each lies a fixed irrational part of the circle after the one before
(Kuipers & Niederreiter 1974, "Uniform distribution of sequences", chapter 2.3). The part is sqrt(2) - 1. Its continued
fraction has only twos, nearly as small as the ones of the golden ratio, with two advantages: every 2nd, 4th, ... 256th
point is spread nearly as evenly as all of them, where multiples of the golden ratio by 8 or 32 are less so; and
counting takes half the time.

A circle has 2^64 places, so that everything is exact.
"""

import math

import numpy as np
from numpy.typing import NDArray

CIRCLE = 1 << 64
STEP = (math.isqrt(2 * CIRCLE**2) - CIRCLE) | 1  # an odd step visits every place before any twice


class KroneckerSequence:
    """The points `shift + k * STEP`, k = 0, 1, ..., as places 0 .. 2^64 - 1 of the circle."""

    def __init__(self, shift: int) -> None:
        """Begin at a place."""
        self.shift = shift % CIRCLE

    def point(self, k: int) -> int:
        """Place of point k."""
        return (self.shift + k * STEP) % CIRCLE

    def points(self, ks: NDArray[np.integer]) -> NDArray[np.uint64]:
        """Places (m,) of points (m,)."""
        return np.uint64(self.shift) + ks.astype(np.uint64) * np.uint64(STEP)

    def count(self, num_points: int, *, first: int, stop: int) -> int:
        """How many of the first points lie at places first .. stop - 1; in time logarithmic in their number."""
        offset = self.shift - first
        # Point k lies in the arc where floor((k STEP + offset) / CIRCLE) is ahead of the same, an arc's length behind.
        return _floor_sum(num_points, offset) - _floor_sum(num_points, offset - (stop - first))


def _euclid(slope: int, divisor: int) -> tuple[tuple[int, int, int], ...]:
    """Whole part and rest of slope / divisor, and the divisor, for every step of Euclid's algorithm."""
    whole, rest = divmod(slope, divisor)
    return (whole, rest, divisor), *(_euclid(divisor, rest) if rest else ())


_STEPS = _euclid(STEP, CIRCLE)


def _floor_sum(count: int, offset: int) -> int:
    """Sum of floor((STEP k + offset) / CIRCLE) over k = 0 .. count - 1.

    This is the number of lattice points under a line; exchanging the axes is a step of Euclid's algorithm on slope
    and divisor (Graham, Knuth & Patashnik, "Concrete Mathematics", section 3.5).
    """
    total = 0
    for whole, slope, divisor in _STEPS:
        above, offset = divmod(offset, divisor)
        total += whole * (count * (count - 1) // 2) + above * count
        height = slope * count + offset
        if height < divisor:
            break
        count, offset = divmod(height, divisor)
    return total
