"""The report of one or several runs: one HTML file that needs nothing else, and its figures as PNG files."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.errors import UserError
from dinov2.utils.atomic import write_text

from .drawing import COLOURS, as_svg, require_matplotlib, write_png
from .facts import facts_of
from .figures import make_plots
from .incidents import bad_tile_tables, nonfinite_tables
from .plots import Plot, describe, footnotes
from .run_folder import Run, read_runs
from .score_table import score_table
from .settings import default_settings, differences
from .table import Table

TEMPLATE = "report.html"
MOST_RUNS = len(COLOURS)  # more lines of one figure cannot be told apart


@dataclass(frozen=True)
class Figure:
    """A figure of the page."""

    plot: Plot
    number: int
    svg: str
    footnotes: str
    descriptions: list[str]


def write_report(folders: Sequence[Path], output: Path, *, png_dir: Path | None = None) -> list[Path]:
    """Write the report of the runs in these folders.

    Args:
        folders: output folders of trainings, the one that the report is about first.
        output: the HTML file.
        png_dir: also gets every figure as a PNG file.
    Returns:
        The files written.
    Raises:
        UserError: if matplotlib is missing, a folder is no run's, or there are too many.
    """
    require_matplotlib()
    if len(folders) > MOST_RUNS:
        raise UserError(f"{len(folders)} runs are too many for one figure; name at most {MOST_RUNS}")
    runs = read_runs(folders)
    plots = make_plots(runs)
    pictures = [] if png_dir is None else [png_dir / f"{plot.name}.png" for plot in plots]
    for plot, picture in zip(plots, pictures):
        write_png(plot, picture)
    # A name of a file may be no text in any encoding; such characters become question marks.
    page = render(runs, plots).encode("utf-8", "replace").decode("utf-8")
    write_text(output, page)
    return [output, *pictures]


def render(runs: Sequence[Run], plots: Sequence[Plot]) -> str:
    """The page; whatever comes from a run is escaped by the template."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(TEMPLATE).render(
        runs=runs,
        figures=[_figure(plot, number) for number, plot in enumerate(plots, start=1)],
        facts=facts_of(runs),
        settings=_settings_tables(runs),
        details=[(run, _tables(run)) for run in runs],
        written=time.strftime("%Y-%m-%d %H:%M:%S"),
    )


def _figure(plot: Plot, number: int) -> Figure:
    return Figure(plot, number, as_svg(plot), footnotes(plot), [describe(panel) for panel in plot.panels])


def _tables(run: Run) -> dict[str, list[Table]]:
    """The tables of a run by the title of their section."""
    scores = score_table(run)
    return {
        "Scores": [scores] if scores else [],
        "Bad tiles": bad_tile_tables(run),
        "Steps without a finite loss or gradient": nonfinite_tables(run),
    }


def _settings_tables(runs: Sequence[Run]) -> list[Table]:
    """Settings in which the runs differ, and those of each run that are not the defaults."""
    tables: list[Table] = []
    known = [run for run in runs if run.settings.values]
    if len(known) > 1:
        rows = differences([run.settings.values for run in known])
        header = ("setting", *(run.label for run in known))
        tables.append(Table("What the runs differ in", header, [(name, *texts) for name, texts in rows]))
    defaults = default_settings()
    for run in known:
        rows = differences([run.settings.values, defaults])
        caption = f"What {run.label} has set otherwise than the defaults"
        tables.append(
            Table(caption, ("setting", "value", "default"), [(n, *t) for n, t in rows], folded=len(known) > 1)
        )
    return tables
