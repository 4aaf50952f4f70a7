"""Random fields: the noise, flow and cell patterns that every drawn tissue is made of.

All fields are computed at once over the tile with OpenCV's resize, remap and distance transform,
since a Python loop over pixels would cost seconds a tile. Lengths are in pixels here; painters
convert from micrometres (`Canvas.px`).

Sources: value noise (Lewis 1989, "Algorithms for solid noise synthesis"); cellular patterns from
the two nearest seeds (Worley 1996, "A cellular texture basis function").
"""

from typing import NamedTuple

import cv2
import numpy as np

FLOW_NOISE_SIZE = 256
"""Edge of the noise image that fibre textures are read from, in pixels; it wraps around."""
FINE_GRAIN = 4.0
"""Below this grain, in pixels, a lattice would show as a grid; blurred white noise does not."""


class Flow(NamedTuple):
    """A bundle of parallel wavy lines: the coordinates across them and along them.

    Attributes:
        across: (S, S) float32, px; constant along one line.
        along: (S, S) float32, px; grows along the lines.
    """

    across: np.ndarray
    along: np.ndarray

    def directions(self, points: np.ndarray) -> np.ndarray:
        """Angle of the line through each point: (P, 2) x, y in px -> (P,) radians."""
        return uphill(self.across, points) - np.pi / 2


def white_noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Independent values of this shape, float32, mean 0, standard deviation 1, at most 2.45.

    The sum of two random bytes: four times faster than a normal draw, and no eye tells them apart.
    """
    pairs = np.frombuffer(rng.bytes(2 * int(np.prod(shape))), np.uint8).reshape(2, *shape)
    total = cv2.add(pairs[0], pairs[1], dtype=cv2.CV_32F).reshape(shape)
    total -= np.float32(255)
    total *= np.float32(1 / 104.51)
    return total


def smooth_noise(rng: np.random.Generator, *, size: int, grain: float) -> np.ndarray:
    """Noise without features finer than `grain`.

    Args:
        size: S, tile edge in px.
        grain: distance between independent values, px.
    Returns:
        (S, S) float32, mean about 0, standard deviation about 1.
    """
    if grain < FINE_GRAIN:
        sigma = max(0.45 * grain, 0.3)
        # A Gaussian of sigma leaves 1 / (2 sqrt(pi) sigma) of white noise's deviation.
        return blur(white_noise(rng, (size, size)), sigma) * np.float32(max(3.545 * sigma, 1))
    if grain >= 4 * FINE_GRAIN:
        coarse = smooth_noise(rng, size=size // 4 + 2, grain=grain / 4)
        return cv2.resize(coarse, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)[:size, :size]
    knots = int(np.ceil(size / grain)) + 3
    lattice = white_noise(rng, (knots, knots))
    edge = int(np.ceil(knots * grain))
    field = cv2.resize(lattice, (edge, edge), interpolation=cv2.INTER_CUBIC)
    top, left = rng.integers(int(grain), edge - size - int(grain) + 1, size=2)
    # Cubic interpolation keeps about half of the variance.
    return field[top : top + size, left : left + size] * np.float32(1.4)


def fractal_noise(rng: np.random.Generator, *, size: int, grain: float, octaves: int = 3) -> np.ndarray:
    """Sum of noises, each half as coarse and 0.6 times as strong as the one before.

    Returns:
        (S, S) float32, mean about 0, standard deviation about 1.
    """
    total = np.zeros((size, size), np.float32)
    power = 0.0
    for octave in range(octaves):
        total += np.float32(0.6**octave) * smooth_noise(rng, size=size, grain=grain / 2**octave)
        power += 0.36**octave
    return total / np.float32(np.sqrt(power))


def smoothstep(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Smooth ramp from 0 at `low` to 1 at `high`; falls where `high` is the smaller one."""
    ramp = (values - np.float32(low)) * np.float32(1 / (high - low))
    np.clip(ramp, 0, 1, out=ramp)
    return ramp * ramp * (3 - 2 * ramp)


def wavy_flow(rng: np.random.Generator, *, size: int, angle: float, amplitude: float, grain: float) -> Flow:
    """Lines running at `angle` (radians), pushed aside by noise.

    Args:
        amplitude: how far a line strays from its straight course, px (standard deviation).
        grain: distance over which it strays and comes back, px.
    """
    axis = np.arange(size, dtype=np.float32)
    row, column = axis[:, None], axis[None, :]
    along = np.float32(np.cos(angle)) * column + np.float32(np.sin(angle)) * row
    across = np.float32(np.cos(angle)) * row - np.float32(np.sin(angle)) * column
    stray = smooth_noise(rng, size=size, grain=grain)
    return Flow(across=across + np.float32(amplitude) * stray, along=along)


def fibre_noise(rng: np.random.Generator, flow: Flow, *, width: float, length: float) -> np.ndarray:
    """Noise drawn out along a flow: streaks of about `width` by `length` px.

    Returns:
        (S, S) float32, mean about 0, standard deviation about 1.
    """
    noise = white_noise(rng, (FLOW_NOISE_SIZE, FLOW_NOISE_SIZE))
    shift_x, shift_y = rng.uniform(0, FLOW_NOISE_SIZE, size=2).astype(np.float32)
    columns = flow.along / np.float32(length) + shift_x
    rows = flow.across / np.float32(width) + shift_y
    streaks = cv2.remap(noise, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP)
    return streaks * np.float32(1.5)  # bilinear interpolation keeps about 0.44 of the variance


def scatter(
    rng: np.random.Generator, *, size: int, spacing: float, jitter: float = 0.3, margin: float = 0
) -> np.ndarray:
    """Points spread evenly but not regularly: a turned hexagonal lattice, shaken.

    Args:
        spacing: distance between neighbours, px.
        jitter: standard deviation of the shaking, as a part of `spacing`.
        margin: how far outside the tile points may lie, px.
    Returns:
        (P, 2) float64, x and y in px.
    """
    reach = int(np.ceil((size / 2 + margin) * 1.42 / spacing)) + 2
    row, column = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    lattice = np.stack([column + 0.5 * (row % 2), row * np.sqrt(0.75)], axis=-1).reshape(-1, 2)
    lattice = lattice + rng.uniform(0, 1, size=2)
    lattice += jitter * rng.standard_normal(lattice.shape)
    turn = rng.uniform(0, np.pi)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = lattice @ rotation * spacing + size / 2
    inside = np.all((points > -margin) & (points < size + margin), axis=1)
    return points[inside]


def thin_out(rng: np.random.Generator, points: np.ndarray, *, keep: np.ndarray) -> np.ndarray:
    """Keeps each point with the probability that the map `keep` (S, S) holds at its place."""
    return points[rng.uniform(size=len(points)) < sample(keep, points)]


def sample(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Values of a field (S, S) at points (P, 2) x, y in px; outside the tile, of its edge."""
    column, row = _nearest_pixels(points, field.shape[0])
    return field[row, column]


def uphill(field: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Angle in which a field (S, S) rises at points (P, 2) x, y in px: (P,) radians."""
    column, row = _nearest_pixels(points, field.shape[0])
    left, right = np.maximum(column - 1, 0), np.minimum(column + 1, field.shape[1] - 1)
    up, down = np.maximum(row - 1, 0), np.minimum(row + 1, field.shape[0] - 1)
    slope_x = (field[row, right] - field[row, left]) / (right - left)
    slope_y = (field[down, column] - field[up, column]) / (down - up)
    return np.arctan2(slope_y, slope_x)


def border_gap(points: np.ndarray, *, size: int) -> np.ndarray:
    """How far each pixel is from the border between the cells around a few seeds.

    Costs about 0.1 ms a seed at S = 256; `many_cells` serves large numbers.

    Args:
        points: (P, 2) x, y in px, P >= 2; seeds outside the tile count.
    Returns:
        (S, S) float32, px; distance to the second nearest seed minus that to the nearest.
    """
    axis = np.arange(size, dtype=np.float32)
    first = np.full((size, size), np.inf, np.float32)
    second = first.copy()
    for x, y in points.astype(np.float32):
        distance = np.sqrt((axis[None, :] - x) ** 2 + (axis[:, None] - y) ** 2)
        np.minimum(second, np.maximum(first, distance), out=second)
        np.minimum(first, distance, out=first)
    return second - first


def many_cells(points: np.ndarray, *, size: int) -> np.ndarray:
    """Cells around any number of seeds by a distance transform, in about 1 ms.

    Returns:
        (S, S) int32, an identifier per cell; identifiers have no order.
    """
    column, row = _nearest_pixels(points, size)
    seeds = np.full((size, size), 255, np.uint8)
    seeds[row, column] = 0
    _, labels = cv2.distanceTransformWithLabels(seeds, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
    return labels


def borders(labels: np.ndarray) -> np.ndarray:
    """Lines one or two pixels wide where identifiers (S, S) change: (S, S) float32 of 0 and 1."""
    edge = np.zeros(labels.shape, np.float32)
    edge[:, 1:] = labels[:, 1:] != labels[:, :-1]
    edge[1:, :] = np.maximum(edge[1:, :], labels[1:, :] != labels[:-1, :])
    return edge


def blur(field: np.ndarray, sigma: float) -> np.ndarray:
    """Gaussian blur with a standard deviation in px; below 0.2 px it changes nothing."""
    if sigma < 0.2:
        return field
    return cv2.GaussianBlur(field, (0, 0), sigma, borderType=cv2.BORDER_REFLECT_101)


def _nearest_pixels(points: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Columns and rows, each (P,), of the pixels under points (P, 2), clipped to the tile."""
    pixels = np.clip(np.rint(points), 0, size - 1).astype(np.intp)
    return pixels[:, 0], pixels[:, 1]
