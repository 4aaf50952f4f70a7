"""One tile: a tissue painted, sometimes with a neighbour at its border, then lit and scanned."""

from collections.abc import Callable

import numpy as np

from dinov2.data.demo.canvas import Canvas
from dinov2.data.demo.connective import paint_fat, paint_muscle, paint_stroma
from dinov2.data.demo.epithelium import paint_glands, paint_mucus, paint_tumour
from dinov2.data.demo.fields import smoothstep
from dinov2.data.demo.infiltrate import paint_debris, paint_lymphocytes
from dinov2.data.demo.optics import SlideLook, optical_density, scan, transmitted_light

Painter = Callable[[Canvas], None]

PAINTERS: dict[str, Painter] = {
    "ADI": paint_fat,
    "DEB": paint_debris,
    "LYM": paint_lymphocytes,
    "MUC": paint_mucus,
    "MUS": paint_muscle,
    "NORM": paint_glands,
    "STR": paint_stroma,
    "TUM": paint_tumour,
}
DEMO_CLASSES: tuple[str, ...] = tuple(PAINTERS)
"""Names of NCT-CRC-HE (Kather et al. 2019) in alphabetical order; a label is an index into it."""

NEIGHBOURS: dict[str, tuple[str, ...]] = {
    "ADI": ("STR", "MUS"),
    "DEB": ("TUM", "STR"),
    "LYM": ("STR", "ADI"),
    "MUC": ("STR", "TUM"),
    "MUS": ("STR", "ADI"),
    "NORM": ("STR", "LYM"),
    "STR": ("ADI", "LYM", "TUM"),
    "TUM": ("STR", "DEB"),
}
"""What may grow into the border of a tile of each class."""
BORDER_SHARE = 0.35
"""Part of the tiles that a neighbour grows into."""
MIN_TILE_SIZE = 32


def draw_tile(tissue: str, *, slide: SlideLook, rng: np.random.Generator, size: int = 256) -> np.ndarray:
    """Draws one tile.

    Args:
        tissue: one of `DEMO_CLASSES`.
        slide: how the slide was stained and scanned.
        rng: decides everything else; the same state gives the same tile.
        size: S, edge in pixels. The area shown is the slide's `field_um` whatever the size.
    Returns:
        (S, S, 3) uint8 RGB, before JPEG.
    """
    if tissue not in PAINTERS:
        raise ValueError(f"unknown tissue {tissue!r}; known are {', '.join(DEMO_CLASSES)}")
    if size < MIN_TILE_SIZE:
        raise ValueError(f"a tile must be at least {MIN_TILE_SIZE} px wide, got {size}")
    canvas = Canvas.blank(rng, size=size, scale=size / slide.field_um)
    paint_section(canvas, tissue)
    density = optical_density(canvas.haematoxylin, eosin=canvas.eosin, look=slide)
    light = transmitted_light(density, look=slide)
    return scan(light, look=slide, rng=rng, focus=float(rng.uniform(0.7, 1.5)))


def paint_section(canvas: Canvas, tissue: str) -> None:
    """Paints the stain concentrations of one tile: tissue, neighbour, unevenness of the cut."""
    PAINTERS[tissue](canvas)
    if canvas.rng.uniform() < BORDER_SHARE:
        _grow_neighbour(canvas, str(canvas.rng.choice(NEIGHBOURS[tissue])))
    thickness = 1 + 0.04 * canvas.noise(50)
    canvas.haematoxylin *= thickness * np.float32(canvas.rng.uniform(0.78, 1.25))
    canvas.eosin *= thickness * np.float32(canvas.rng.uniform(0.78, 1.25))
    np.maximum(canvas.haematoxylin, 0, out=canvas.haematoxylin)
    np.maximum(canvas.eosin, 0, out=canvas.eosin)


def _grow_neighbour(canvas: Canvas, tissue: str) -> None:
    """Lets another tissue into a corner or side: less than about a third of the tile."""
    rng, size = canvas.rng, canvas.size
    other = Canvas.blank(rng, size=size, scale=canvas.scale)
    PAINTERS[tissue](other)
    axis = np.linspace(-0.5, 0.5, size, dtype=np.float32)
    angle = rng.uniform(0, 2 * np.pi)
    outward = np.float32(np.cos(angle)) * axis[None, :] + np.float32(np.sin(angle)) * axis[:, None]
    line = outward + 0.05 * canvas.noise(25, octaves=3) - np.float32(rng.uniform(0.2, 0.45))
    soft = canvas.px(1.0) / size
    canvas.cover(smoothstep(line, -soft, soft), haematoxylin=other.haematoxylin, eosin=other.eosin)
    # A thin layer of collagen between the two, as in life, also hides nuclei cut by the line.
    capsule = smoothstep(np.abs(line), canvas.px(rng.uniform(1.5, 4)) / size, 0)
    collagen = 0.36 + 0.06 * canvas.noise(2.0, octaves=2)
    canvas.cover(capsule, haematoxylin=0.05, eosin=collagen)
