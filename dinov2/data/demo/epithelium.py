"""Painters of epithelium: normal glands, tumour, and the mucus that both can make.

Glands keep an order that tumour loses: one row of like nuclei at the base, pale goblet cells above
them, a lumen in the middle. Tumour nuclei are large, unequal, crowded and point anywhere; where the
tumour still forms glands, its nuclei pile up around ragged holes.
"""

from dataclasses import dataclass, replace

import cv2
import numpy as np

from dinov2.data.demo.canvas import (
    BLAST,
    CRYPT,
    DUST,
    LYMPHOCYTE,
    PLASMA_CELL,
    Canvas,
    NucleusKind,
    paint_nuclei,
)
from dinov2.data.demo.connective import lay_collagen, paint_stroma, sprinkle
from dinov2.data.demo.fields import (
    Flow,
    blur,
    borders,
    fibre_noise,
    many_cells,
    sample,
    scatter,
    smoothstep,
    uphill,
    wavy_flow,
)


@dataclass(frozen=True)
class Lining:
    """The columnar cells that line a gland.

    Attributes:
        nuclei: their kind.
        height_um: from base to lumen, micrometres.
        spacing_um: between the nuclei along the base, micrometres.
        rise: mean height of the nuclei over the base, as a part of the cells' height.
        rise_spread: its standard deviation; large where nuclei pile up.
        tilt: standard deviation of the nuclei's axes from upright, radians.
        goblets: part of the cells that hold a drop of mucus.
        basophilia: haematoxylin concentration of the cytoplasm.
    """

    nuclei: NucleusKind
    height_um: float
    spacing_um: float
    rise: float
    rise_spread: float
    tilt: float
    goblets: float
    basophilia: float


def paint_glands(canvas: Canvas) -> None:
    """NORM: glands of the bowel, cut across or along, in a loose cellular stroma."""
    rng = canvas.rng
    flow = wavy_flow(
        rng,
        size=canvas.size,
        angle=rng.uniform(0, np.pi),
        amplitude=canvas.px(6),
        grain=canvas.px(60),
    )
    lay_collagen(canvas, flow, looseness=rng.uniform(0.2, 0.4))
    sprinkle(canvas, PLASMA_CELL, spacing_um=rng.uniform(9, 15))
    sprinkle(canvas, LYMPHOCYTE, spacing_um=rng.uniform(14, 24))
    mask = _tubes(canvas, flow) if rng.uniform() < 0.3 else _round_glands(canvas)
    lining = Lining(
        nuclei=CRYPT,
        height_um=rng.uniform(15, 22),
        spacing_um=rng.uniform(4.8, 6.2),
        rise=0.24,
        rise_spread=0.045,
        tilt=0.12,
        goblets=rng.uniform(0.2, 0.6),
        basophilia=0.09,
    )
    _line_glands(canvas, mask, lining)


def paint_tumour(canvas: Canvas) -> None:
    """TUM: crowded unequal nuclei in sheets or around ragged lumens, a little stroma between."""
    rng = canvas.rng
    paint_stroma(canvas)
    if rng.uniform() < 0.4:
        _lay_malformed_glands(canvas)
    else:
        _lay_sheet(canvas)
    sprinkle(canvas, LYMPHOCYTE, spacing_um=rng.uniform(35, 90))


def paint_mucus(canvas: Canvas) -> None:
    """MUC: pale pools with wisps and threads, single cells and clusters afloat."""
    rng = canvas.rng
    flow = wavy_flow(
        rng,
        size=canvas.size,
        angle=rng.uniform(0, np.pi),
        amplitude=canvas.px(rng.uniform(7, 13)),
        grain=canvas.px(rng.uniform(38, 60)),
    )
    threads = _threads(canvas, flow, width_um=rng.uniform(6, 11), length_um=140)
    threads += _threads(canvas, flow, width_um=rng.uniform(2, 3), length_um=70)
    threads += 0.7 * _threads(canvas, flow, width_um=1.1, length_um=40)
    haze = rng.uniform(0.08, 0.18) + 0.06 * canvas.noise(25, octaves=3)
    body = np.clip(haze + rng.uniform(0.1, 0.26) * threads, 0.01, None)
    body *= 1 + 0.12 * canvas.noise(1.3)
    tint = rng.uniform(0.25, 0.8)
    canvas.cover(np.ones_like(body), haematoxylin=body, eosin=tint * body)
    sprinkle(canvas, PLASMA_CELL, spacing_um=rng.uniform(22, 60))
    for _ in range(rng.poisson(0.7)):
        _float_cluster(canvas, centre=rng.uniform(0, 1, size=2) * canvas.size)


def _tumour_nuclei(rng: np.random.Generator) -> NucleusKind:
    """One tumour's nuclei: between small dark and large vesicular, always unequal."""
    return NucleusKind(
        length_um=rng.uniform(10, 14),
        spread=rng.uniform(0.15, 0.28),
        aspect=(rng.uniform(0.35, 0.6), rng.uniform(0.75, 0.95)),
        irregularity=rng.uniform(0.06, 0.12),
        chromatin=rng.uniform(0.5, 0.95),
        chromatin_spread=0.25,
        clumping=rng.uniform(0.1, 0.2),
        membrane=rng.uniform(1.2, 1.6),
        pale=rng.uniform(0.6, 0.95),
        nucleoli=rng.uniform(0.2, 1.6),
    )


def _lay_sheet(canvas: Canvas) -> None:
    """Tumour without glands: nests of cells, perhaps with a few small holes."""
    rng = canvas.rng
    level = rng.uniform(-2.6, -0.9)
    nest = smoothstep(canvas.noise(rng.uniform(35, 70), octaves=2), level, level + 0.12)
    level = rng.uniform(1.6, 3.6)
    hole = smoothstep(canvas.noise(rng.uniform(18, 34), octaves=2), level, level + 0.15)
    kind = _tumour_nuclei(rng)
    spacing = canvas.px(kind.length_um * rng.uniform(0.88, 1.2))
    seeds = scatter(rng, size=canvas.size, spacing=spacing, jitter=0.24, margin=canvas.px(7))
    _lay_tumour_cells(canvas, seeds, nest)
    canvas.cover(hole, haematoxylin=0.02, eosin=0.04)
    clear = (sample(nest, seeds) > 0.6) & (sample(canvas.soften(hole, 3), seeds) < 0.1)
    seeds = seeds[clear]
    grain = uphill(canvas.noise(40), seeds)
    angles = grain + rng.normal(0, rng.uniform(0.3, 1.2), size=len(seeds))
    paint_nuclei(canvas, kind, centres=seeds, angles=angles)


def _lay_malformed_glands(canvas: Canvas) -> None:
    """Tumour that still forms glands: ragged outlines, piled-up long nuclei, dirty lumens."""
    rng = canvas.rng
    shape = canvas.noise(rng.uniform(38, 60), octaves=3)
    mask = (shape > rng.uniform(-0.8, 0.2)).astype(np.uint8)
    nuclei = replace(_tumour_nuclei(rng), length_um=rng.uniform(11, 14.5), aspect=(0.28, 0.6))
    lining = Lining(
        nuclei=nuclei,
        height_um=rng.uniform(15, 24),
        spacing_um=rng.uniform(3.2, 4.4),
        rise=rng.uniform(0.36, 0.46),
        rise_spread=rng.uniform(0.12, 0.22),
        tilt=rng.uniform(0.2, 0.45),
        goblets=0.0,
        basophilia=rng.uniform(0.1, 0.18),
    )
    lumen = _line_glands(canvas, mask, lining)
    dirty = lumen * smoothstep(canvas.noise(14, octaves=3), rng.uniform(-0.5, 2), 2.2)
    flakes = np.clip(0.3 + 0.15 * canvas.noise(2.5, octaves=2), 0.02, None)
    canvas.cover(dirty, haematoxylin=0.3 * flakes, eosin=flakes)
    sprinkle(canvas, DUST, spacing_um=4, keep=0.8 * dirty)


def _threads(canvas: Canvas, flow: Flow, *, width_um: float, length_um: float) -> np.ndarray:
    """Wisps along a flow, in some places only: (S, S) float32, 0 to about 1."""
    streaks = fibre_noise(canvas.rng, flow, width=canvas.px(width_um), length=canvas.px(length_um))
    strength = smoothstep(canvas.noise(22, octaves=2), -0.8, 1.6)
    return strength * smoothstep(canvas.soften(streaks, 0.3), 0.2, 1.8)


def _float_cluster(canvas: Canvas, *, centre: np.ndarray) -> None:
    """A clump of tumour cells afloat in mucus."""
    rng, size = canvas.rng, canvas.size
    radius = canvas.px(rng.uniform(9, 22)) * (1 + 0.25 * canvas.noise(14))
    clump = smoothstep(canvas.distance_from(centre) - radius, 1, -1)
    seeds = scatter(rng, size=size, spacing=canvas.px(9.5), jitter=0.25)
    _lay_tumour_cells(canvas, seeds, clump)
    paint_nuclei(canvas, BLAST, centres=seeds[sample(clump, seeds) > 0.7])


def _lay_tumour_cells(canvas: Canvas, seeds: np.ndarray, nest: np.ndarray) -> None:
    """Cytoplasm of tumour cells around their nuclei (P, 2) where the mask (S, S) is 1."""
    rng = canvas.rng
    labels = many_cells(seeds, size=canvas.size)
    tint = rng.normal(1, 0.12, size=labels.max() + 1).astype(np.float32)[labels]
    walls = blur(borders(labels), canvas.px(0.45))
    grain = 1 + 0.1 * canvas.noise(1.5)
    eosin = np.float32(rng.uniform(0.24, 0.36)) * tint * grain * (1 + 0.35 * walls)
    canvas.cover(nest, haematoxylin=np.float32(rng.uniform(0.1, 0.2)) * grain, eosin=eosin)


def _round_glands(canvas: Canvas) -> np.ndarray:
    """Glands cut across: (S, S) uint8 mask of wobbly discs that keep apart."""
    rng = canvas.rng
    spacing = canvas.px(rng.uniform(62, 90))
    centres = scatter(rng, size=canvas.size, spacing=spacing, jitter=0.06, margin=spacing)
    theta = np.linspace(0, 2 * np.pi, 72, endpoint=False)
    angle, aspect = rng.uniform(0, np.pi), rng.uniform(0.75, 1)
    mask = np.zeros((canvas.size, canvas.size), np.uint8)
    for centre in centres:
        radius = 0.415 * spacing * rng.uniform(0.85, 1.05)
        wobble = 1 + sum(
            rng.normal(0, 0.05 / order) * np.cos(order * theta + rng.uniform(0, 6.28)) for order in (2, 3, 4, 5)
        )
        x, y = radius * wobble * np.cos(theta), aspect * radius * wobble * np.sin(theta)
        cos, sin = np.cos(angle), np.sin(angle)
        curve = centre + np.stack([cos * x - sin * y, sin * x + cos * y], axis=-1)
        cv2.fillPoly(mask, [np.rint(curve).astype(np.int32)], 1)
    return mask


def _tubes(canvas: Canvas, flow: Flow) -> np.ndarray:
    """Glands cut along their length: (S, S) uint8 mask of parallel bands."""
    period = canvas.px(canvas.rng.uniform(58, 75))
    phase = np.mod(flow.across / period + canvas.rng.uniform(), 1)
    return (np.abs(phase - 0.5) < 0.4 + 0.02 * canvas.noise(25)).astype(np.uint8)


def _line_glands(canvas: Canvas, mask: np.ndarray, lining: Lining) -> np.ndarray:
    """Fills glands (S, S) with columnar cells from base to lumen; returns the lumen's mask."""
    rng = canvas.rng
    height = canvas.px(lining.height_um)
    depth = cv2.distanceTransform(mask, cv2.DIST_L2, 5) + canvas.px(0.6) * canvas.noise(7)
    inside = canvas.soften(mask.astype(np.float32), 0.4)
    grain = 1 + 0.1 * canvas.noise(1.6)
    eosin = np.float32(rng.uniform(0.24, 0.34)) * grain
    canvas.cover(inside, haematoxylin=lining.basophilia, eosin=eosin)
    base, inward = _base_points(canvas, mask, spacing=canvas.px(lining.spacing_um))
    _draw_cell_walls(canvas, base, inward, height)
    _draw_goblets(canvas, base, inward, height, share=lining.goblets)
    lumen = smoothstep(depth, height, height + canvas.px(1.2))
    secret = np.float32(rng.uniform(0, 0.1)) * np.clip(0.6 + canvas.noise(9, octaves=3), 0, 2)
    canvas.cover(lumen, haematoxylin=secret, eosin=0.5 * secret)
    brush = np.exp(-(((depth - height + canvas.px(0.8)) / canvas.px(0.9)) ** 2))
    basement = np.exp(-((depth / canvas.px(0.8)) ** 2)) * mask
    canvas.eosin += 0.14 * brush + 0.12 * basement
    rise = np.clip(rng.normal(lining.rise, lining.rise_spread, size=(len(base), 1)), 0.15, 0.8)
    angles = np.arctan2(inward[:, 1], inward[:, 0]) + rng.normal(0, lining.tilt, size=len(base))
    paint_nuclei(canvas, lining.nuclei, centres=base + inward * height * rise, angles=angles)
    return lumen


def _base_points(canvas: Canvas, mask: np.ndarray, *, spacing: float) -> tuple[np.ndarray, np.ndarray]:
    """Points along the glands' outlines and the unit vectors inward, (P, 2) each, x and y."""
    contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
    # A contour's pixels lie about 1.1 px apart.
    step = max(1, round(spacing / 1.1))
    points = np.concatenate([contour[::step, 0] for contour in contours] or [np.zeros((0, 2))])
    on_tile_edge = np.any((points <= 0) | (points >= canvas.size - 1), axis=1)
    points = points[~on_tile_edge].astype(float)
    field = blur(mask.astype(np.float32), canvas.px(3))
    angle = uphill(field, points)
    return points, np.stack([np.cos(angle), np.sin(angle)], axis=-1)


def _draw_cell_walls(canvas: Canvas, base: np.ndarray, inward: np.ndarray, height: float) -> None:
    """Thin lines between neighbouring columnar cells, from base to lumen."""
    lines = np.zeros((canvas.size, canvas.size), np.uint8)
    ends = np.stack([base, base + inward * height * 0.95], axis=1)  # (P, 2, 2)
    cv2.polylines(lines, list(np.rint(ends * 16).astype(np.int32)), False, 255, 1, cv2.LINE_AA, 4)
    canvas.eosin += 0.13 * blur(lines.astype(np.float32) / 255, 0.6)


def _draw_goblets(canvas: Canvas, base: np.ndarray, inward: np.ndarray, height: float, *, share: float) -> None:
    """Pale drops of mucus in the upper half of some columnar cells."""
    rng = canvas.rng
    chosen = rng.uniform(size=len(base)) < share
    base, inward = base[chosen], inward[chosen]
    centres = base + inward * height * rng.normal(0.66, 0.06, size=(len(base), 1))
    drops = np.zeros((canvas.size, canvas.size), np.uint8)
    for (x, y), (dx, dy) in zip(centres, inward, strict=True):
        axes = height * rng.uniform(0.48, 0.68), canvas.px(rng.uniform(4.8, 7.6))
        upright = float(np.degrees(np.arctan2(dy, dx)))
        cv2.ellipse(drops, ((float(x), float(y)), axes, upright), 255, -1, cv2.LINE_AA)
    drop = blur(drops.astype(np.float32) / 255, canvas.px(0.4))
    pale = np.clip(0.09 + 0.03 * canvas.noise(2), 0.02, None)
    canvas.cover(0.9 * drop, haematoxylin=pale, eosin=0.04)
