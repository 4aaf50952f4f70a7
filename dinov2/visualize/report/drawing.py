"""A figure of the report as matplotlib draws it."""

from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from .plots import Curve, Mark, Panel, Plot
from .style import DASHED, DOTTED, INK, LONGEST_NAME, MUTED, NOTE_HEIGHT, PANEL_SIZE, colour_of, dashes_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def draw(plot: Plot) -> "Figure":
    """A figure whose size follows the number of panels; panels are equally large in all figures."""
    from matplotlib.figure import Figure

    count = len(plot.panels)
    columns = plot.columns or {1: 1, 2: 2, 4: 2}.get(count, 3)
    rows = -(-count // columns)
    figure = Figure(figsize=(PANEL_SIZE[0] * columns, PANEL_SIZE[1] * rows), layout="constrained")
    axes = list(figure.subplots(rows, columns, squeeze=False).ravel())
    rows_of_names = max([_draw_panel(axis, panel) for axis, panel in zip(axes, plot.panels)])
    for axis, panel in zip(axes, plot.panels):
        axis.set_title(_short(panel.title), pad=6 + NOTE_HEIGHT * rows_of_names)
    for axis in axes[count:]:
        axis.remove()
    _name_lines(axes, plot)
    _name_runs(figure, plot, columns)
    return figure


def _draw_panel(axis: "Axes", panel: Panel) -> int:
    """Draw all but the title; returns how many rows of names stand above the panel."""
    for curve in panel.curves:
        _draw_curve(axis, curve)
    for limit in panel.limits:
        axis.axhline(limit.value, color=MUTED, linewidth=0.9, linestyle=DASHED)
        axis.annotate(limit.label, (1, limit.value), **_note("right", 2), xycoords=axis.get_yaxis_transform())
    _set_ticks(axis, log=panel.log)
    if panel.from_zero:
        axis.set_ylim(bottom=0)
    axis.set_ylabel(_short(panel.unit))
    axis.set_xlabel("iteration")
    return _draw_marks(axis, panel.marks)


def _draw_curve(axis: "Axes", curve: Curve) -> None:
    band, colour = curve.band, colour_of(curve.colour)
    is_thinned = band.per_point > 1
    marker = "o" if (curve.markers and not is_thinned) or len(band.x) == 1 else ""
    axis.plot(band.x, band.middle, color=colour, linestyle=dashes_of(curve.style), marker=marker, markersize=2.5)
    if (band.low < band.high).any():
        axis.fill_between(band.x, band.low, band.high, color=colour, alpha=0.2, linewidth=0)


def _set_ticks(axis: "Axes", *, log: bool) -> None:
    from matplotlib.ticker import EngFormatter, LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

    axis.xaxis.set_major_locator(MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axis.xaxis.set_major_formatter(EngFormatter(sep=""))
    if log:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
        axis.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axis.yaxis.set_minor_formatter(NullFormatter())


def _draw_marks(axis: "Axes", marks: Sequence[Mark]) -> int:
    """Dotted lines and stars, with their names in rows above the panel; returns how many rows."""
    left, right = axis.get_xlim()
    rows: list[float] = []  # where the last name of each row is
    for mark in sorted(_merged(marks), key=attrgetter("iteration")):
        colour = colour_of(mark.colour)
        axis.axvline(mark.iteration, color=colour, linewidth=0.9, linestyle=DOTTED)
        if mark.value is not None:
            star = INK if mark.colour is None else colour
            axis.plot(mark.iteration, mark.value, "*", color=star, markersize=9, zorder=3)
        row = next((row for row, x in enumerate(rows) if mark.iteration - x > (right - left) / 2), len(rows))
        rows[row : row + 1] = [mark.iteration]
        side = "right" if mark.iteration > (left + right) / 2 else "left"
        note = _note(side, 2 + NOTE_HEIGHT * row) | {"color": colour}
        axis.annotate(mark.label, (mark.iteration, 1), **note, xycoords=axis.get_xaxis_transform())
    return len(rows)


def _merged(marks: Iterable[Mark]) -> list[Mark]:
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
        handles = [
            Line2D([], [], color=INK if curve.run else colour_of(curve.colour), linestyle=dashes_of(curve.style))
            for curve in looks.values()
        ]
        axis.legend(handles, map(_short, looks))


def _name_runs(figure: "Figure", plot: Plot, columns: int) -> None:
    """A legend of the runs above all panels, where there are several."""
    from matplotlib.lines import Line2D

    colours = {curve.run: curve.colour for curve in plot.curves if curve.run}
    if not colours:
        return
    handles = [Line2D([], [], color=colour_of(number), linewidth=2) for number in colours.values()]
    names = list(map(_short, colours))
    # Below each other where they are wider than a panel, which is what a telephone shows at a time.
    columns = columns if sum(map(len, names)) <= LONGEST_NAME else 1
    figure.legend(handles, names, loc="outside upper left", ncols=columns)


def _short(name: str) -> str:
    """A name that fits beside a figure, without characters that cannot be drawn."""
    printable = "".join(character if character.isprintable() else "\ufffd" for character in name)
    return printable if len(printable) <= LONGEST_NAME else f"{printable[: LONGEST_NAME - 1]}\u2026"
