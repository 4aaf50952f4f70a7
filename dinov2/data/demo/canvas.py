"""The canvas that tissue is painted on, two concentration maps, and the nuclei painted on it.

A nucleus is a closed curve: an ellipse with wobbles, a taper and a bend. It is filled with
chromatin (haematoxylin, clumped), edged with its membrane, and may carry nucleoli. The kinds below
serve several tissues; sizes are those of a pathology textbook, in micrometres.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from dinov2.data.demo.fields import blur, fractal_noise, smooth_noise

_SHIFT = 4
"""OpenCV draws at 1/16 px."""
_MAX_CONCENTRATION = 3.0
"""Concentration of level 255 in the 8-bit layer that nuclei are drawn on."""
_NUCLEOLAR_EOSIN = 30
"""Level of eosin in nucleoli, 255 being `_MAX_CONCENTRATION`: protein makes them magenta."""
_OUTLINE_POINTS = 20
_MEMBRANE_UM = 0.5
"""Thickness of what is drawn darker as nuclear membrane, micrometres."""
_DRAWN_BEYOND = 0.5
"""OpenCV's smooth-edged fill reaches this far beyond the curve, in px."""


@dataclass
class Canvas:
    """A tile before any light passes it.

    Attributes:
        rng: where all randomness of this tile comes from.
        size: S, edge in px.
        scale: pixels per micrometre.
        haematoxylin: (S, S) float32 concentration, see `optics.optical_density`.
        eosin: (S, S) float32 concentration.
    """

    rng: np.random.Generator
    size: int
    scale: float
    haematoxylin: np.ndarray
    eosin: np.ndarray

    @classmethod
    def blank(cls, rng: np.random.Generator, *, size: int, scale: float) -> "Canvas":
        """Empty glass."""
        maps = np.zeros((2, size, size), np.float32)
        return cls(rng=rng, size=size, scale=scale, haematoxylin=maps[0], eosin=maps[1])

    def px(self, micrometres: float) -> float:
        """Micrometres in pixels."""
        return micrometres * self.scale

    def noise(self, grain_um: float, *, octaves: int = 1) -> np.ndarray:
        """(S, S) noise with a grain in micrometres, mean 0, standard deviation 1."""
        grain = self.px(grain_um)
        if octaves == 1:
            return smooth_noise(self.rng, size=self.size, grain=grain)
        return fractal_noise(self.rng, size=self.size, grain=grain, octaves=octaves)

    @cached_property
    def chromatin_noise(self) -> np.ndarray:
        """(S, S) noise with the grain of chromatin, 1 to 2 micrometres; one for all nuclei."""
        return self.noise(1.0) + self.noise(1.9)

    def distance_from(self, centre: np.ndarray, *, aspect: float = 1.0, angle: float = 0.0) -> np.ndarray:
        """Distance from a point, x and y in px, to every pixel: (S, S) float32, px.

        Args:
            aspect: short axis of the ellipse on which distance is 1, as a part of the long one.
            angle: direction of its long axis, radians.
        """
        axis = np.arange(self.size, dtype=np.float32)
        x, y = axis[None, :] - np.float32(centre[0]), axis[:, None] - np.float32(centre[1])
        cos, sin = np.float32(np.cos(angle)), np.float32(np.sin(angle))
        return np.hypot(cos * x + sin * y, (cos * y - sin * x) / np.float32(aspect))

    def soften(self, mask: np.ndarray, sigma_um: float) -> np.ndarray:
        """Blurs a mask by micrometres."""
        return blur(mask, self.px(sigma_um))

    def cover(
        self,
        mask: np.ndarray,
        *,
        haematoxylin: np.ndarray | float,
        eosin: np.ndarray | float,
    ) -> None:
        """Puts other tissue where the mask (S, S) is 1, a mixture where it lies between 0 and 1."""
        for stain, value in ((self.haematoxylin, haematoxylin), (self.eosin, eosin)):
            change = np.subtract(value, stain, dtype=np.float32)
            change *= mask
            stain += change


@dataclass(frozen=True)
class NucleusKind:
    """What nuclei of one cell type look like.

    Attributes:
        length_um: mean long axis, micrometres.
        spread: standard deviation of the size, as a part of it.
        aspect: least and greatest short axis, as a part of the long one.
        irregularity: standard deviation of the outline's wobble, as a part of the radius.
        taper: 0 for an ellipse, towards 1 for a spindle with pointed ends.
        bend: sideways shift of both ends, as a part of the half length (standard deviation).
        chromatin: mean haematoxylin concentration.
        chromatin_spread: standard deviation of it between nuclei, as a part of it.
        clumping: standard deviation of it within a nucleus, as a part of it.
        membrane: concentration at the rim relative to the inside.
        pale: concentration in the middle relative to that nearer the rim; below 1 is vesicular.
        nucleoli: mean number of nucleoli.
        plain: drawn without membrane and pale middle; for what is too small to show them.
    """

    length_um: float
    spread: float
    aspect: tuple[float, float]
    irregularity: float
    chromatin: float
    taper: float = 0.0
    bend: float = 0.0
    chromatin_spread: float = 0.15
    clumping: float = 0.12
    membrane: float = 1.2
    pale: float = 0.92
    nucleoli: float = 0.0
    plain: bool = False


LYMPHOCYTE = NucleusKind(6.6, 0.08, (0.84, 1.0), 0.03, 0.95, clumping=0.16, membrane=1.1)
PLASMA_CELL = NucleusKind(7.0, 0.08, (0.85, 1.0), 0.03, 0.9, clumping=0.2, membrane=1.25)
BLAST = NucleusKind(10, 0.12, (0.75, 1.0), 0.05, 0.6, membrane=1.5, pale=0.75, nucleoli=1.2)
FIBROBLAST = NucleusKind(13, 0.28, (0.12, 0.28), 0.05, 0.85, taper=0.5, bend=0.12)
MUSCLE = NucleusKind(20, 0.22, (0.1, 0.17), 0.03, 0.75, taper=0.15, bend=0.06)
CRYPT = NucleusKind(9.5, 0.12, (0.42, 0.62), 0.04, 0.8, nucleoli=0.25)
DUST = NucleusKind(2.4, 0.5, (0.5, 1.0), 0.15, 1.2, chromatin_spread=0.3, plain=True)


def paint_nuclei(canvas: Canvas, kind: NucleusKind, *, centres: np.ndarray, angles: np.ndarray | None = None) -> None:
    """Paints nuclei one over the other.

    Args:
        centres: (P, 2) x, y in px.
        angles: (P,) direction of the long axes, radians; any direction where left out.
    """
    if len(centres) == 0:
        return
    rng = canvas.rng
    if angles is None:
        angles = rng.uniform(0, np.pi, size=len(centres))
    rims, insides = _outlines(canvas, kind, centres, angles)
    levels = kind.chromatin * (1 + kind.chromatin_spread * rng.standard_normal(len(centres)))
    levels = np.clip(levels, 0.35 * kind.chromatin, 0.8 * _MAX_CONCENTRATION)  # (P,)
    # Three channels: OpenCV smooths edges on images of one, three or four.
    layer = np.zeros((canvas.size, canvas.size, 3), np.uint8)
    _fill(layer, rims, insides, levels, kind)
    if kind.nucleoli:
        _dot_nucleoli(canvas, layer, insides, levels, kind.nucleoli)
    _stain(canvas, layer, clumping=kind.clumping)


def _outlines(
    canvas: Canvas, kind: NucleusKind, centres: np.ndarray, angles: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Outer and inner edge of the nuclei's membranes: two of (P, K, 2) float64, x, y in px."""
    rng, count = canvas.rng, len(centres)
    theta = np.linspace(0, 2 * np.pi, _OUTLINE_POINTS, endpoint=False)
    sizes = np.clip(1 + kind.spread * rng.standard_normal(count), 0.45, 2.2)
    half = 0.5 * canvas.px(kind.length_um) * sizes  # (P,)
    axes = np.stack([half, half * rng.uniform(*kind.aspect, size=count)])[..., None]  # (2, P, 1)
    radius = np.ones((count, _OUTLINE_POINTS))
    for order in (2, 3, 4, 5):
        phase = rng.uniform(0, 2 * np.pi, size=(count, 1))
        weight = kind.irregularity * rng.standard_normal((count, 1)) * 2 / order
        radius += weight * np.cos(order * theta + phase)
    x = radius * np.cos(theta)
    y = radius * np.sin(theta) * np.abs(np.sin(theta)) ** kind.taper
    sag = kind.bend * rng.standard_normal((count, 1)) * (x**2 - 0.4) * axes[0]
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def curve(inset: float) -> np.ndarray:
        long, short = np.maximum(axes - inset, 0.35 * axes)
        turned = cos * x * long - sin * (y * short + sag), sin * x * long + cos * (y * short + sag)
        return centres[:, None, :] + np.stack(turned, axis=-1)

    return curve(_DRAWN_BEYOND), curve(_DRAWN_BEYOND + canvas.px(_MEMBRANE_UM))


def _fill(layer: np.ndarray, rims: np.ndarray, insides: np.ndarray, levels: np.ndarray, kind: NucleusKind) -> None:
    """Draws nuclei on a layer (S, S, 3) of 0 to 255: cover, haematoxylin, eosin."""
    middles = insides.mean(axis=1, keepdims=True)
    steps = [(rims, kind.membrane), (insides, 1.0)]
    steps += [(middles + 0.66 * (insides - middles), kind.pale)]
    fixed = [np.rint(curves * 2**_SHIFT).astype(np.int32) for curves, _ in steps]
    colours = [np.clip(levels * part / _MAX_CONCENTRATION * 255, 0, 255) for _, part in steps]
    shown = (0,) if kind.plain else (0, 1, 2)
    for nucleus in range(len(levels)):
        for step in shown:
            colour = (255, float(colours[step][nucleus]), 0)
            cv2.fillPoly(layer, [fixed[step][nucleus]], colour, cv2.LINE_AA, _SHIFT)


def _dot_nucleoli(canvas: Canvas, layer: np.ndarray, outlines: np.ndarray, levels: np.ndarray, mean: float) -> None:
    """Adds dark round nucleoli between the centre and the rim of some nuclei."""
    rng = canvas.rng
    counts = rng.poisson(mean, size=len(outlines))
    owners = np.repeat(np.arange(len(outlines)), counts)
    corner = rng.integers(0, _OUTLINE_POINTS, size=len(owners))
    centres = outlines.mean(axis=1)[owners]
    reach = rng.uniform(0, 0.6, size=(len(owners), 1))
    places = centres + reach * (outlines[owners, corner] - centres)  # (N, 2)
    radii = canvas.px(1.0) * rng.uniform(0.5, 1.15, size=len(owners))
    dark = np.clip(levels[owners] * 1.6 / _MAX_CONCENTRATION * 255, 0, 255)
    unit = 2**_SHIFT
    for (x, y), radius, level in zip(places.tolist(), radii, dark.tolist(), strict=True):
        centre = round(x * unit), round(y * unit)
        colour = (255, level, _NUCLEOLAR_EOSIN)
        cv2.circle(layer, centre, int(radius * unit), colour, -1, cv2.LINE_AA, _SHIFT)


def _stain(canvas: Canvas, layer: np.ndarray, *, clumping: float) -> None:
    """Lays drawn nuclei, (S, S, 3) uint8, over the canvas."""
    cover, density, eosin = (channel.astype(np.float32) for channel in cv2.split(canvas.soften(layer, 0.3)))
    cover *= np.float32(1 / 255)
    clumps = 1 + np.float32(clumping) * canvas.chromatin_noise
    density *= np.clip(clumps, 0.5, 1.7, out=clumps)
    density *= np.float32(_MAX_CONCENTRATION / 255)
    eosin *= np.float32(_MAX_CONCENTRATION / 255)
    # `density` is already weighted with the cover: both fade together at a smoothed edge.
    canvas.haematoxylin *= 1 - cover
    canvas.haematoxylin += density
    canvas.eosin *= 1 - np.float32(0.35) * cover
    canvas.eosin += eosin
