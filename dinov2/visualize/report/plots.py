"""What a figure shows, as plain data: panels, curves, marks. How it looks is up to `drawing`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter

import numpy as np

from .json_lines import Columns
from .run_folder import Run
from .thinning import BINS, Band, thin

EDGES = ("_low", "_high")  # of names that bound an interval around the name before them


@dataclass(frozen=True)
class Curve:
    """A line in a panel.

    Attributes:
        name: what is drawn, as it was logged.
        nonfinite: reports that have no finite value, where the line is broken.
        colour, style: numbers of a colour and of a way to draw a line.
        label: what the line is, beside others in the panel; empty where it is alone.
        run: whose it is; empty where there is one run.
    """

    name: str
    band: Band
    nonfinite: int
    colour: int
    style: int
    label: str = ""
    run: str = ""
    markers: bool = False


@dataclass(frozen=True)
class Mark:
    """A moment of the training: a vertical line; with a value, a star at that height."""

    iteration: float
    label: str
    colour: int | None = None
    value: float | None = None


@dataclass(frozen=True)
class Limit:
    """A value that matters: a horizontal line."""

    value: float
    label: str


@dataclass(frozen=True)
class Panel:
    """One pair of axes over iterations."""

    title: str
    unit: str
    curves: list[Curve]
    marks: list[Mark] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    log: bool = False
    from_zero: bool = False


@dataclass(frozen=True)
class Plot:
    """A figure of the report: small multiples with a title and a caption.

    Attributes:
        columns: panels beside each other; None where it does not matter.
    """

    name: str
    title: str
    caption: str
    panels: list[Panel]
    columns: int | None = None

    @property
    def curves(self) -> Iterator[Curve]:
        """The lines of all panels."""
        return (curve for panel in self.panels for curve in panel.curves)


@dataclass(frozen=True)
class Line:
    """A logged name that a panel shows, and what it is beside others; its style is its number among them."""

    name: str
    label: str = ""
    style: int = 0


def make_curves(
    runs: Sequence[Run],
    lines: Sequence[Line],
    *,
    source: Callable[[Run], Columns] = attrgetter("metrics"),
    scale: float = 1.0,
    markers: bool = False,
) -> list[Curve]:
    """The lines of logged names: a colour for each run or, where there is one run, for each style.

    Args:
        source: where a run has the names.
        scale: what values are multiplied by.
    """
    several = len(runs) > 1
    bins = BINS * 3 // max(len(runs), 3)  # keeps the page small; nobody follows six lines to the pixel
    return [
        Curve(
            line.name,
            *_band(source(run), line.name, scale, bins),
            colour=number if several else line.style,
            style=line.style,
            label=line.label,
            run=run.label if several else "",
            markers=markers,
        )
        for number, run in enumerate(runs)
        for line in lines
        if line.name in source(run).values
    ]


def _band(columns: Columns, name: str, scale: float, bins: int) -> tuple[Band, int]:
    """What to draw of a name and of the interval around it, and how many of its reports are no finite number."""
    reported = ~np.isnan(columns.values[name])
    y, low, high = (
        np.where(np.isfinite(values), values, np.nan)[reported] * scale
        for values in (columns.values.get(f"{name}{ending}", columns.values[name]) for ending in ("", *EDGES))
    )
    return thin(columns.iterations[reported], y, low, high, bins=bins), int(np.isnan(y).sum())


def describe(panel: Panel) -> str:
    """A panel in words, for those who cannot see it."""
    unit = f" [{panel.unit}]" if panel.unit else ""
    lines = "; ".join(map(_describe_curve, panel.curves))
    marked = [f"{mark.label} at iteration {mark.iteration:,.0f}" for mark in panel.marks]
    marked += [f"{limit.label}: {limit.value:.4g}" for limit in panel.limits]
    return f"{panel.title}{unit}: {lines}{''.join(f'; {text}' for text in marked)}."


def _describe_curve(curve: Curve) -> str:
    drawn = np.flatnonzero(~np.isnan(curve.band.middle))
    name = ", ".join(part for part in (curve.run, curve.label) if part)
    prefix = f"{name} " if name else ""
    if not len(drawn):
        return f"{prefix}has no finite value"
    (first, last), (x, y) = drawn[[0, -1]], curve.band[:2]
    return (
        f"{prefix}from {y[first]:.4g} at iteration {x[first]:,.0f} to {y[last]:.4g} at {x[last]:,.0f}, "
        f"between {np.nanmin(curve.band.low):.4g} and {np.nanmax(curve.band.high):.4g}"
    )


def footnotes(plot: Plot) -> str:
    """What a reader must know of how the curves of a figure were made from the reports."""
    notes = []
    if any(curve.run for curve in plot.curves):
        notes.append("Of lines that coincide, that of the last run is seen.")
    longest = max((curve.band.per_point for curve in plot.curves), default=1)
    if longest > 1:
        notes.append(
            f"Thinned: a point stands for up to {longest:,} reports; the line is their median, and the band reaches "
            "from the smallest to the largest of them."
        )
    broken = sum(curve.nonfinite for curve in plot.curves)
    if broken:
        notes.append(f"Lines are broken at {broken:,} reports that are no finite number.")
    return " ".join(notes)
