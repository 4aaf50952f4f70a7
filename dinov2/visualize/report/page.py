"""The page: one HTML file that needs nothing else, and its figures as PNG files beside it."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from dinov2.errors import UserError
from dinov2.utils.atomic import write_text
from dinov2.utils.outputs import try_file, try_folder

from .facts import facts_of
from .figures import make_plots
from .incidents import bad_tile_tables, nonfinite_tables
from .pictures import as_svg, require_matplotlib, write_png
from .plots import Plot, describe, footnotes
from .run_folder import Run, read_runs
from .score_table import score_tables
from .settings_table import settings_tables
from .style import COLOURS
from .table import Table

TEMPLATE = "page.html"
MOST_RUNS = len(COLOURS)  # more lines of one figure cannot be told apart


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    plot: Plot
    number: int
    svg: str
    footnotes: str
    descriptions: list[str]


@dataclass(frozen=True)
class Section:
    """Tables under a title, and (title, text) listings."""

    name: str
    title: str
    tables: list[Table]
    listings: list[tuple[str, str]] = field(default_factory=list)


def write_report(folders: Sequence[Path], output: Path, *, png_dir: Path | None = None) -> list[Path]:
    """Write the report of the runs in these folders.

    Args:
        folders: output folders of trainings, the one that the report is about first.
        output: the HTML file.
        png_dir: also gets every figure as a PNG file.
    Returns:
        The files written.
    Raises:
        UserError: if matplotlib is missing, a folder is no run's, there are too many, or nothing can be written.
    """
    require_matplotlib()
    if len(folders) > MOST_RUNS:
        raise UserError(f"{len(folders)} runs are too many for one figure; name at most {MOST_RUNS}")
    runs = read_runs(folders)
    try_file(output)
    if png_dir is not None:
        try_folder(png_dir)
    plots = make_plots(runs)
    pictures = [] if png_dir is None else [png_dir / f"{plot.name}.png" for plot in plots]
    # A name of a file may be no text in any encoding; such characters become question marks.
    page = render(runs, plots).encode("utf-8", "replace").decode("utf-8")
    write_text(output, page)
    for plot, picture in zip(plots, pictures):
        write_png(plot, picture)
    return [output, *pictures]


def render(runs: Sequence[Run], plots: Sequence[Plot]) -> str:
    """The page; whatever comes from a run is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        runs=runs,
        facts=facts_of(runs),
        figures=[_figure(plot, number) for number, plot in enumerate(plots, start=1)],
        sections=_sections(runs),
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _figure(plot: Plot, number: int) -> Figure:
    return Figure(plot, number, as_svg(plot), footnotes(plot), [describe(panel) for panel in plot.panels])


def _sections(runs: Sequence[Run]) -> list[Section]:
    """What follows the figures; sections without a table are left out, but for that of the settings."""
    tables = [
        Section("all-scores", "All scores", _tables(runs, score_tables)),
        Section("bad-tiles", "Bad tiles", _tables(runs, bad_tile_tables)),
        Section("nonfinite", "Steps without a finite loss or gradient", _tables(runs, nonfinite_tables)),
    ]
    listings = [(f"The whole configuration of {run.label}", run.settings.text) for run in runs if run.settings.text]
    settings = Section("settings", "Settings", settings_tables(runs), listings)
    return [section for section in tables if section.tables] + [settings]


def _tables(runs: Sequence[Run], make: Callable[[Run], list[Table]]) -> list[Table]:
    """The tables of all runs; of several, they say whose they are."""
    named = [(run, table) for run in runs for table in make(run)]
    if len(runs) == 1:
        return [table for _, table in named]
    return [replace(table, caption=f"{run.label}: {table.caption}") for run, table in named]
