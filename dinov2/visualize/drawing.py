"""How figures look: small multiples in the Okabe-Ito colours, as SVG for a page or as PNG.

In an SVG every colour is a CSS variable, so that the page decides between light and dark.
"""

import re
from collections.abc import Sequence
from html import escape
from importlib.util import find_spec
from io import BytesIO, StringIO
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.errors import UserError

from .plots import Curve, Mark, Panel, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito 2008, "Color universal design", without black and yellow.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
INK, MUTED, GRID = "#1a1a1a", "#707070", "#e0e0e0"
VARIABLES = {INK: "--ink", MUTED: "--muted", GRID: "--grid"} | {c: f"--line-{i}" for i, c in enumerate(COLOURS)}
DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))
COLUMNS = 3
NOTE_HEIGHT = 9  # points of a row of small text
_PANEL = (3.4, 2.5)  # inches
_LONGEST = 40  # characters of a name

STYLE = {
    "svg.fonttype": "none",  # text stays text
    "text.parse_math": False,  # a name with two dollars is no formula
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.labelsize": 8,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.linewidth": 0.6,
    "grid.color": GRID,
    "lines.linewidth": 1.3,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "legend.handlelength": 2.4,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    **{name: INK for name in ("text.color", "axes.edgecolor", "axes.labelcolor", "axes.titlecolor")},
    **{name: INK for name in ("xtick.color", "ytick.color")},
}


def require_matplotlib() -> None:
    """Check that figures can be drawn.

    Raises:
        UserError: if matplotlib is not installed; names the extra that has it.
    """
    if find_spec("matplotlib") is None:
        raise UserError('figures need matplotlib: pip install -e ".[viz]" in this repository, or pip install matplotlib')


def as_svg(plot: Plot) -> str:
    """A figure as an `<svg>` element to stand in a page beside others; "words-{name}" there describes it."""
    stream = StringIO()
    _save(plot, stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = stream.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg[svg.index("<svg") :], count=1, flags=re.DOTALL)
    svg = re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{plot.name}-", svg)
    named = f' role="img" aria-label="{escape(plot.title)}" aria-describedby="words-{plot.name}">'
    svg = svg.replace(">", named, 1)
    for colour, variable in VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    return svg


def write_png(plot: Plot, path: Path) -> None:
    """Write a figure for a slide or a paper, at 200 dots per inch."""
    stream = BytesIO()
    _save(plot, stream, format="png", dpi=200, facecolor="white")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())


def _save(plot: Plot, stream: Any, **options: Any) -> None:
    import matplotlib

    with matplotlib.rc_context({**STYLE, "svg.hashsalt": plot.name}):
        draw(plot).savefig(stream, **options)


def draw(plot: Plot) -> "Figure":
    """A matplotlib figure, whose size follows the number of panels."""
    from matplotlib.figure import Figure

    count = len(plot.panels)
    columns = {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(_PANEL[0] * columns, _PANEL[1] * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    rows_of_names = max([_draw_panel(axis, panel) for axis, panel in zip(axes, plot.panels)])
    for axis, panel in zip(axes, plot.panels):
        axis.set_title(_short(panel.title), pad=6 + NOTE_HEIGHT * rows_of_names)
    for axis in axes[count:]:
        axis.remove()
    _name_lines(axes, plot)
    _name_runs(figure, plot)
    return figure


def _draw_panel(axis: "Axes", panel: Panel) -> int:
    """Draw all but the title; returns how many rows of names stand above the panel."""
    for curve in panel.curves:
        _draw_curve(axis, curve)
    for limit in panel.limits:
        axis.axhline(limit.value, color=MUTED, linewidth=0.9, linestyle=DASHES[1])
        axis.annotate(limit.label, (1, limit.value), **_note("right", 2), xycoords=axis.get_yaxis_transform())
    _set_ticks(axis, log=panel.log)
    if panel.from_zero:
        axis.set_ylim(bottom=0)
    axis.set_ylabel(_short(panel.unit))
    axis.set_xlabel("iteration")
    return _draw_marks(axis, panel.marks)


def _set_ticks(axis: "Axes", *, log: bool) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if log:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_curve(axis: "Axes", curve: Curve) -> None:
    band, colour = curve.band, _colour(curve.colour)
    look: dict[str, Any] = {"color": colour, "linestyle": DASHES[curve.style % len(DASHES)]}
    if curve.markers and band.per_point == 1 or len(band.x) == 1:
        look |= {"marker": "o", "markersize": 2.5}
    axis.plot(band.x, band.middle, **look)
    if (band.low < band.high).any():
        axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.2, linewidth=0)


def _draw_marks(axis: "Axes", marks: Sequence[Mark]) -> int:
    """Dotted lines and stars, with their names in rows above the panel; returns how many rows."""
    left, right = axis.get_xlim()
    rows: list[float] = []  # where the last name of each row begins
    for mark in sorted(_merged(marks), key=attrgetter("iteration")):
        colour = MUTED if mark.colour is None else _colour(mark.colour)
        axis.axvline(mark.iteration, color=colour, linewidth=0.9, linestyle=DASHES[2])
        if mark.value is not None:
            star = INK if mark.colour is None else colour
            axis.plot(mark.iteration, mark.value, "*", color=star, markersize=9, zorder=3)
        is_right = mark.iteration > (left + right) / 2
        row = next((row for row, x in enumerate(rows) if mark.iteration - x > (right - left) / 2), len(rows))
        rows[row : row + 1] = [mark.iteration]
        note = _note("right" if is_right else "left", 2 + NOTE_HEIGHT * row) | {"color": colour}
        axis.annotate(mark.label, (mark.iteration, 1), **note, xycoords=axis.get_xaxis_transform())
    return len(rows)


def _merged(marks: Sequence[Mark]) -> list[Mark]:
    """Marks of the same moment and colour as one, with all their names."""
    merged: dict[tuple[float, int | None, float | None], list[str]] = {}
    for mark in marks:
        merged.setdefault((mark.iteration, mark.colour, mark.value), []).append(mark.label)
    return [Mark(x, ", ".join(labels), colour, value) for (x, colour, value), labels in merged.items()]


def _note(side: str, height: float) -> dict[str, Any]:
    """How a small text stands beside a point, `height` points above it."""
    offset = {"left": 3, "right": -3}[side]
    return {"xytext": (offset, height), "textcoords": "offset points", "ha": side, "fontsize": 7, "color": MUTED}


def _name_lines(axes: Sequence["Axes"], plot: Plot) -> None:
    """A legend in the first of the panels that have the same lines, where there are several of a run."""
    from matplotlib.lines import Line2D

    named = set()
    for axis, panel in zip(axes, plot.panels):
        looks = {curve.label: curve for curve in panel.curves}
        if len(looks) < 2 or tuple(looks) in named:
            continue
        named.add(tuple(looks))
        colours = [INK if curve.run else _colour(curve.colour) for curve in looks.values()]
        styles = [DASHES[curve.style % len(DASHES)] for curve in looks.values()]
        handles = [Line2D([], [], color=colour, linestyle=style) for colour, style in zip(colours, styles)]
        axis.legend(handles, map(_short, looks))


def _name_runs(figure: "Figure", plot: Plot) -> None:
    """A legend of the runs above all panels, where there are several."""
    from matplotlib.lines import Line2D

    colours = {curve.run: curve.colour for curve in plot.curves if curve.run}
    if not colours:
        return
    handles = [Line2D([], [], color=_colour(number), linewidth=2) for number in colours.values()]
    figure.legend(handles, map(_short, colours), loc="outside upper left", ncols=3)


def _colour(number: int) -> str:
    return COLOURS[number % len(COLOURS)]


def _short(name: str) -> str:
    """A name that fits beside a figure and that matplotlib draws as it is."""
    printable = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return printable if len(printable) <= _LONGEST else f"{printable[: _LONGEST - 1]}\u2026"
