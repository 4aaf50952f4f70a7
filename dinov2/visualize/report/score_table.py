"""All scores of a run in figures, also those that no panel shows."""

import numpy as np

from .run_folder import Run
from .score_figure import METRICS, readable, shown_value
from .scores import parse_name, score_names
from .table import Table

HEADER = ("score", "first", "best", "after", "newest")


def score_tables(run: Run) -> list[Table]:
    """First, best and newest value of every score, in one table; none where there are no scores."""
    rows = [row for name in score_names(run.scores.values) if (row := _row(run, name))]
    return [Table(f"Scores of {len(run.scores):,} evaluations", HEADER, rows, folded=True)] if rows else []


def _row(run: Run, name: str) -> tuple[str, ...] | None:
    finite = np.isfinite(run.scores.values[name])
    values, iterations = run.scores.values[name][finite], run.scores.iterations[finite]
    if not len(values):
        return None
    first, newest = shown_value(name, values[0]), shown_value(name, values[-1])
    score = parse_name(name)
    if score.metric not in METRICS or score.probe == "site":  # more is not better, or that is not known
        return readable(name), first, "", "", newest
    best = int(values.argmax())
    return readable(name), first, shown_value(name, values[best]), f"{iterations[best]:,}", newest
