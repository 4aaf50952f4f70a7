"""Synthetic H&E tiles, drawn by optics: data for a first run that needs no download.

Stain concentrations are painted tissue by tissue, turned into optical density and light by the law
of Beer and Lambert, and scanned. Eight tissue classes differ in structure; slides differ in stain,
thickness and scanner, by more than classes differ in colour. Nothing here is real tissue: the set
shows that training works, and says nothing about diagnosis.

From the shell: `python -m dinov2.data.demo --output DIR`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .baselines import ColourBaselines, colour_baselines
    from .optics import SlideLook, make_slide_look
    from .slides import DemoDataset, make_demo_dataset
    from .tiles import DEMO_CLASSES, draw_tile

_HOMES = {
    "DEMO_CLASSES": "tiles",
    "ColourBaselines": "baselines",
    "DemoDataset": "slides",
    "SlideLook": "optics",
    "colour_baselines": "baselines",
    "draw_tile": "tiles",
    "make_demo_dataset": "slides",
    "make_slide_look": "optics",
}

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


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: a command line is read without NumPy."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
