"""Figures as SVG for a page, and as PNG for a slide or a paper."""

import re
from html import escape
from importlib.util import find_spec
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

from dinov2.errors import UserError
from dinov2.utils.atomic import atomic_path

from .drawing import draw
from .plots import Plot
from .style import SETTINGS, VARIABLES

DOTS_PER_INCH = 200


def require_matplotlib() -> None:
    """Check that figures can be drawn.

    Raises:
        UserError: if matplotlib is not installed; names the extra that has it.
    """
    if find_spec("matplotlib") is None:
        raise UserError(
            "the report needs matplotlib, which the extra \"viz\" installs: pip install -e '.[viz]' in the repository"
        )


def as_svg(plot: Plot) -> str:
    """A figure as an `<svg>` element for a page; the element "words-{name}" describes it."""
    stream = StringIO()
    _save(plot, stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub("<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{plot.name}-", svg)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    named = f'<svg role="img" aria-label="{escape(plot.title)}" aria-describedby="words-{plot.name}"'
    return svg.replace("<svg", named, 1)


def write_png(plot: Plot, path: Path) -> None:
    """Write a figure on white."""
    stream = BytesIO()
    _save(plot, stream, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    with atomic_path(path) as temporary:
        temporary.write_bytes(stream.getvalue())


def _save(plot: Plot, stream: Any, **options: Any) -> None:
    import matplotlib

    with matplotlib.rc_context({**SETTINGS, "svg.hashsalt": plot.name}):
        draw(plot).savefig(stream, **options)
