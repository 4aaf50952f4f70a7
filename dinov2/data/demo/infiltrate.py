"""Painters of tissue without architecture: fields of lymphocytes, and debris of dead tissue."""

import numpy as np

from dinov2.data.demo.canvas import (
    BLAST,
    DUST,
    LYMPHOCYTE,
    Canvas,
    NucleusKind,
    paint_nuclei,
)
from dinov2.data.demo.connective import paint_vessel, sprinkle
from dinov2.data.demo.fields import scatter, smoothstep, thin_out

GHOST = NucleusKind(9, 0.2, (0.6, 0.95), 0.08, 0.3, chromatin_spread=0.4, membrane=1.3)


def paint_lymphocytes(canvas: Canvas) -> None:
    """LYM: small round dark nuclei, densely packed, perhaps with the pale centre of a follicle."""
    rng = canvas.rng
    mesh = np.clip(1 + 0.5 * canvas.noise(5, octaves=3), 0.05, None)
    canvas.cover(np.ones_like(mesh), haematoxylin=0.07 * mesh, eosin=rng.uniform(0.12, 0.26) * mesh)
    density = canvas.noise(rng.uniform(14, 40), octaves=2)
    keep = smoothstep(density, *(rng.uniform(-2.6, -0.9) + np.array([-0.6, 0.6])))
    if rng.uniform() < 0.3:
        centre = smoothstep(canvas.noise(70), 0.3, 0.6)
        keep = keep * (1 - 0.75 * centre)
        sprinkle(canvas, BLAST, spacing_um=9.5, keep=centre)
    spacing = canvas.px(rng.uniform(7.0, 10.5))
    seeds = scatter(rng, size=canvas.size, spacing=spacing, jitter=0.22, margin=canvas.px(4))
    paint_nuclei(canvas, LYMPHOCYTE, centres=thin_out(rng, seeds, keep=keep))
    if rng.uniform() < 0.3:
        paint_vessel(canvas, centre=rng.uniform(0.1, 0.9, size=2) * canvas.size)


def paint_debris(canvas: Canvas) -> None:
    """DEB: granular pink remains, ghosts of cells, nuclear dust in drifts, ragged cracks."""
    rng = canvas.rng
    lumps = canvas.noise(rng.uniform(5, 10), octaves=3)
    grain = canvas.noise(1.2)
    patches = canvas.noise(35, octaves=2)
    eosin = 0.36 * np.clip(1 + 0.25 * lumps + 0.16 * grain + 0.2 * patches, 0.1, 2.2)
    haze = np.clip(0.1 + 0.06 * lumps - 0.05 * patches + 0.04 * grain, 0.01, None)
    canvas.cover(np.ones_like(eosin), haematoxylin=haze, eosin=eosin)
    torn = lumps + 0.9 * canvas.noise(22)
    edge = rng.uniform(-3.4, -1.7)
    cracks = smoothstep(torn, edge, edge - 0.3)
    canvas.cover(cracks, haematoxylin=0.01, eosin=0.03)
    whole = 1 - cracks
    sprinkle(canvas, GHOST, spacing_um=rng.uniform(11, 18), keep=0.7 * whole)
    drift = smoothstep(canvas.noise(rng.uniform(12, 30), octaves=2), -0.6, 1.6) * whole
    sprinkle(canvas, DUST, spacing_um=rng.uniform(3.2, 5.5), keep=drift)
    sprinkle(canvas, LYMPHOCYTE, spacing_um=rng.uniform(18, 40), keep=0.8 * whole)
