"""Painters of connective tissue: collagenous stroma, smooth muscle and fat.

Stroma and muscle are both pink and fibrous. As under a microscope, what tells them apart is order:
collagen is wavy, split by clefts, and its nuclei are thin and far apart; muscle runs in straight
close-packed fascicles with long blunt nuclei, and some fascicles are cut across.
"""

import cv2
import numpy as np

from dinov2.data.demo.canvas import (
    FIBROBLAST,
    LYMPHOCYTE,
    MUSCLE,
    Canvas,
    NucleusKind,
    paint_nuclei,
)
from dinov2.data.demo.fields import (
    Flow,
    blur,
    border_gap,
    borders,
    fibre_noise,
    many_cells,
    sample,
    scatter,
    smooth_noise,
    smoothstep,
    thin_out,
    uphill,
    wavy_flow,
)

ENDOTHELIUM = NucleusKind(8.5, 0.2, (0.2, 0.35), 0.04, 1.1, taper=0.3)


def paint_stroma(canvas: Canvas) -> None:
    """STR: wavy bundles of collagen, spindle nuclei, clefts, now and then a vessel."""
    rng = canvas.rng
    flow = wavy_flow(
        rng,
        size=canvas.size,
        angle=rng.uniform(0, np.pi),
        amplitude=canvas.px(rng.uniform(4, 10)),
        grain=canvas.px(rng.uniform(28, 55)),
    )
    lay_collagen(canvas, flow, looseness=rng.uniform(0.0, 0.35))
    place_along(canvas, flow, FIBROBLAST, spacing_um=rng.uniform(16, 28))
    for _ in range(rng.poisson(0.7)):
        paint_vessel(canvas, centre=rng.uniform(0.1, 0.9, size=2) * canvas.size)
    sprinkle(canvas, LYMPHOCYTE, spacing_um=rng.uniform(26, 70))


def paint_muscle(canvas: Canvas) -> None:
    """MUS: straight fascicles of smooth muscle cells, some of them cut across."""
    rng = canvas.rng
    flow = wavy_flow(
        rng,
        size=canvas.size,
        angle=rng.uniform(0, np.pi),
        amplitude=canvas.px(rng.uniform(1.5, 4)),
        grain=canvas.px(rng.uniform(45, 80)),
    )
    fascicles = fibre_noise(rng, flow, width=canvas.px(rng.uniform(18, 30)), length=canvas.px(220))
    _lay_long_cut(canvas, flow, fascicles)
    place_along(canvas, flow, MUSCLE, spacing_um=rng.uniform(13.5, 19))
    if rng.uniform() < 0.4:
        level = rng.uniform(0.1, 1.2)
        across = smoothstep(fascicles, level, level + 0.12)
        _lay_cross_cut(canvas, across)


def paint_fat(canvas: Canvas) -> None:
    """ADI: large empty cells between thin membranes, flat nuclei pressed against them."""
    rng = canvas.rng
    outside = _beyond_fat_cells(
        canvas,
        spacing=canvas.px(rng.uniform(42, 72)),
        wall=canvas.px(rng.uniform(1.4, 2.8)),
        radius=canvas.px(rng.uniform(7, 13)),
    )
    cell = smoothstep(outside, canvas.px(0.6), 0)
    fibres = np.clip(0.24 + 0.08 * canvas.noise(2.0, octaves=2), 0.04, None)
    canvas.cover(1 - cell, haematoxylin=0.04, eosin=fibres)
    membrane = np.exp(-(((outside - canvas.px(0.4)) / canvas.px(0.6)) ** 2))
    canvas.eosin += membrane * np.float32(rng.uniform(0.15, 0.35))
    _press_nuclei(canvas, outside, number=rng.poisson(5))
    if rng.uniform() < 0.3:
        corner = np.unravel_index(np.argmax(outside), outside.shape)
        paint_vessel(canvas, centre=np.array(corner[::-1], float), radius_um=rng.uniform(2.5, 4))


def lay_collagen(canvas: Canvas, flow: Flow, *, looseness: float) -> None:
    """Covers the canvas with collagen along a flow.

    Args:
        looseness: about the part of the area that is clefts between bundles, 0 to 0.5.
    """
    rng = canvas.rng
    bundles = fibre_noise(rng, flow, width=canvas.px(rng.uniform(4, 8)), length=canvas.px(80))
    fibres = fibre_noise(rng, flow, width=canvas.px(1.0), length=canvas.px(26))
    grain = 0.2 * fibres + 0.1 * canvas.noise(1.3) + 0.12 * canvas.noise(22)
    eosin = 0.38 * np.clip(1 + 0.2 * bundles + grain, 0.15, 2)
    # Where the coarse noise is lowest, bundles have come apart.
    ragged = canvas.soften(bundles + grain, 0.4)
    edge = -1.5 + 2.6 * looseness
    clefts = smoothstep(ragged, edge, edge - 0.4)
    canvas.cover(
        np.ones_like(eosin),
        haematoxylin=0.04 + 0.02 * clefts,
        eosin=eosin * (1 - 0.93 * clefts),
    )


def place_along(canvas: Canvas, flow: Flow, kind: NucleusKind, *, spacing_um: float) -> None:
    """Scatters nuclei whose long axes follow a flow."""
    spacing = canvas.px(spacing_um)
    centres = scatter(canvas.rng, size=canvas.size, spacing=spacing, jitter=0.38, margin=canvas.px(7))
    wobble = canvas.rng.normal(0, 0.1, size=len(centres))
    paint_nuclei(canvas, kind, centres=centres, angles=flow.directions(centres) + wobble)


def sprinkle(canvas: Canvas, kind: NucleusKind, *, spacing_um: float, keep: np.ndarray | None = None) -> None:
    """Drops nuclei anywhere, one per square of `spacing_um`, or fewer as a map (S, S) says."""
    number = canvas.rng.poisson((canvas.size / canvas.px(spacing_um)) ** 2)
    centres = canvas.rng.uniform(0, canvas.size, size=(number, 2))
    if keep is not None:
        centres = thin_out(canvas.rng, centres, keep=keep)
    paint_nuclei(canvas, kind, centres=centres)


def paint_vessel(canvas: Canvas, *, centre: np.ndarray, radius_um: float | None = None) -> None:
    """A capillary or venule: flat nuclei around a lumen that may hold red cells."""
    rng = canvas.rng
    radius = canvas.px(radius_um or rng.uniform(4, 9))
    distance = canvas.distance_from(centre, aspect=rng.uniform(0.5, 1), angle=rng.uniform(0, 3))
    distance = distance / radius + 0.08 * canvas.noise(6)
    wall = smoothstep(distance, 1.5, 1.3)
    canvas.cover(wall, haematoxylin=0.06, eosin=0.42)
    lumen = smoothstep(distance, 1.05, 0.95)
    canvas.cover(lumen, haematoxylin=0.0, eosin=0.03)
    _paint_red_cells(canvas, lumen)
    theta = rng.uniform(0, 2 * np.pi) + np.arange(4) * rng.uniform(1.2, 1.9)
    theta = theta[: int(rng.integers(2, 5))]
    ring = np.stack([np.cos(theta), np.sin(theta)], axis=-1)
    centres = centre + 1.05 * radius * ring
    paint_nuclei(canvas, ENDOTHELIUM, centres=centres, angles=theta + np.pi / 2)


def _paint_red_cells(canvas: Canvas, lumen: np.ndarray) -> None:
    """Fills a part of a lumen (S, S) with red cells: discs 6.5 micrometres wide, no nuclei."""
    seeds = scatter(canvas.rng, size=canvas.size, spacing=canvas.px(6.0), jitter=0.2)
    seeds = seeds[sample(lumen, seeds) > 0.8]
    seeds = seeds[canvas.rng.uniform(size=len(seeds)) < canvas.rng.uniform(0.1, 1)]
    for seed in seeds:
        distance = canvas.distance_from(seed, aspect=canvas.rng.uniform(0.7, 1), angle=0.5)
        disc = smoothstep(distance, canvas.px(3.3), canvas.px(2.7))
        canvas.cover(disc, haematoxylin=0.02, eosin=0.85)


def _lay_long_cut(canvas: Canvas, flow: Flow, fascicles: np.ndarray) -> None:
    """Muscle cells seen from the side: stripes 4 micrometres wide, thin seams between fascicles."""
    rng = canvas.rng
    stripes = fibre_noise(rng, flow, width=canvas.px(3.6), length=canvas.px(110))
    fine = fibre_noise(rng, flow, width=canvas.px(1.0), length=canvas.px(60))
    eosin = 0.47 * np.clip(1 + 0.14 * stripes + 0.07 * fine + 0.08 * canvas.noise(30), 0.3, 2)
    seam = smoothstep(np.abs(fascicles + 0.06 * stripes), 0.13, 0.05)
    canvas.cover(
        np.ones_like(eosin),
        haematoxylin=0.05,
        eosin=eosin * (1 - np.float32(rng.uniform(0.3, 0.9)) * seam),
    )


def _lay_cross_cut(canvas: Canvas, region: np.ndarray) -> None:
    """Muscle cells cut across, where the mask (S, S) is 1: small polygons, central round nuclei."""
    rng, size = canvas.rng, canvas.size
    seeds = scatter(rng, size=size, spacing=canvas.px(6.5), jitter=0.18, margin=canvas.px(4))
    labels = many_cells(seeds, size=size)
    tint = rng.normal(1, 0.1, size=labels.max() + 1).astype(np.float32)[labels]
    walls = blur(borders(labels), canvas.px(0.5))
    canvas.cover(region, haematoxylin=0.05, eosin=0.5 * tint * (1 - 0.6 * walls))
    round_cut = NucleusKind(4.2, 0.2, (0.75, 1.0), 0.05, 0.95)
    inside = seeds[sample(region, seeds) > 0.7]
    shown = inside[rng.uniform(size=len(inside)) < 0.3]
    paint_nuclei(canvas, round_cut, centres=shown)


def _beyond_fat_cells(canvas: Canvas, *, spacing: float, wall: float, radius: float) -> np.ndarray:
    """Distance from the fat cells of a tile: (S, S) float32, px; see `_beyond_rounded`.

    Args:
        spacing: of the cells, px.
        wall: thickness of the walls between them, px.
        radius: of their corners, px.
    """
    rng, size = canvas.rng, canvas.size
    seeds = scatter(rng, size=size, spacing=spacing, jitter=0.17, margin=1.2 * spacing)
    # Cells are cut out of a larger tile: rounding needs to see a radius beyond the edge. Half the
    # resolution is enough for it.
    frame = int(np.ceil(radius)) + 1
    edge = size + 2 * frame
    gap = 2 * cv2.resize(border_gap((seeds + frame) / 2, size=(edge + 1) // 2), (edge, edge))
    wobble = canvas.px(0.4) * smooth_noise(rng, size=edge, grain=canvas.px(18))
    outside = _beyond_rounded(gap + wobble > wall, radius=radius)
    return outside[frame : frame + size, frame : frame + size]


def _beyond_rounded(cells: np.ndarray, *, radius: float) -> np.ndarray:
    """Distance from cells (S, S, bool) whose corners are rounded to a radius in px.

    Shrinking a shape by the radius and growing it back leaves out what a ball cannot reach.
    Returns:
        (S, S) float32, px: 0 on the rounded outline, negative inside.
    """
    depth = cv2.distanceTransform(cells.astype(np.uint8), cv2.DIST_L2, 5)
    core = (depth <= radius).astype(np.uint8)
    return cv2.distanceTransform(core, cv2.DIST_L2, 5) - np.float32(radius)


def _press_nuclei(canvas: Canvas, outside: np.ndarray, *, number: int) -> None:
    """Puts flat nuclei just inside membranes, given the distance from the fat cells (S, S)."""
    wall_points = np.argwhere((outside > -1.6) & (outside < -0.2))[:, ::-1].astype(float)
    if len(wall_points) == 0:
        return
    centres = wall_points[canvas.rng.integers(0, len(wall_points), size=number)]
    angles = uphill(outside, centres) + np.pi / 2
    paint_nuclei(canvas, ENDOTHELIUM, centres=centres, angles=angles)
