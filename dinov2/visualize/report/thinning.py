"""Long curves in a few hundred points that hide no extreme."""

from typing import NamedTuple

import numpy as np

BINS = 200  # points of a thinned curve; a panel is about 250 pixels wide


class Band(NamedTuple):
    """A curve of m points and the range around it, (m,) float64 each; NaN breaks the curve.

    `per_point` is how many reports the longest bin holds: 1 where nothing was thinned.
    """

    x: np.ndarray
    middle: np.ndarray
    low: np.ndarray
    high: np.ndarray
    per_point: int = 1


def thin(x: np.ndarray, y: np.ndarray, low: np.ndarray, high: np.ndarray, *, bins: int) -> Band:
    """The points of a curve, or, of more than two a bin, the median of each bin and its smallest and largest value.

    Args:
        x, y: (n,); y is NaN where nothing is to be drawn.
        low, high: (n,) an interval around y, or y itself; NaN where it is not known.
    """
    low, high = (np.where(np.isnan(edge), y, edge) for edge in (low, high))
    if len(x) <= 2 * bins:
        return Band(x.astype(np.float64), y, low, high)
    starts = np.linspace(0, len(x), bins, endpoint=False).astype(np.int64)
    ends = np.append(starts[1:], len(x))
    return Band(
        x=(x[starts] + x[ends - 1]) / 2,
        middle=np.array([_median(y[start:end]) for start, end in zip(starts, ends)]),
        low=np.fmin.reduceat(low, starts),
        high=np.fmax.reduceat(high, starts),
        per_point=int((ends - starts).max()),
    )


def _median(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(np.median(values)) if len(values) else np.nan
