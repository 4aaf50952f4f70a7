"""Synthetic H&E tiles, drawn by optics: data for a first run that needs no download.

Stain concentrations are painted tissue by tissue, turned into optical density and light by the law
of Beer and Lambert, and scanned. Eight tissue classes differ in structure; slides differ in stain,
thickness and scanner, by more than classes differ in colour. Nothing here is real tissue: the set
shows that training works, and says nothing about diagnosis.

From the shell: `python -m dinov2.data.demo --output DIR`.
"""

from dinov2.data.demo.baselines import ColourBaselines, colour_baselines
from dinov2.data.demo.optics import SlideLook, make_slide_look
from dinov2.data.demo.slides import DemoDataset, make_demo_dataset
from dinov2.data.demo.tiles import DEMO_CLASSES, draw_tile

__all__ = [
    "DEMO_CLASSES",
    "ColourBaselines",
    "DemoDataset",
    "SlideLook",
    "colour_baselines",
    "draw_tile",
    "make_demo_dataset",
    "make_slide_look",
]
