"""Scores of a model for its card: those of the training, and evaluations of exactly these weights."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from dinov2.errors import UserError
from dinov2.eval.results import Figure, Row, markdown_table
from dinov2.visualize.report.run_folder import Run, read_object
from dinov2.visualize.report.score_figure import readable, shown_value
from dinov2.visualize.report.scores import best_score, drawn_variants, parse_name, score_names, tracking_of

from .facts import shortened
from .markdown import plain
from .origin import Origin


class Evaluation(NamedTuple):
    """Results of an evaluation: its name, what was evaluated on, and the table for people."""

    name: str
    data: dict[str, str]
    table: str


def training_scores(origin: Origin, network: str) -> list[tuple[str, ...]]:
    """Scores of a network during its training, as rows of a table whose first one is the header.

    There is a column for the exported weights, if they were scored, the best teacher, and the last evaluation.
    """
    run = origin.run
    if run is None or not len(run.scores):
        return []
    columns = _columns(run, origin.iterations)
    variants = drawn_variants(score_names(run.scores.values), tracking_of(run)).values()
    names = [name for group in variants for name in group if parse_name(name).network in (network, "")]
    values = run.scores.values
    rows = [(readable(name), *(_shown(name, values[name][row]) for row in columns.values())) for name in names]
    return [("score", *columns), *rows] if rows else []


def evaluations(origin: Origin, files: tuple[Path, ...]) -> list[Evaluation]:
    """Evaluations of the exported weights: those in the folder of the run, and files that are named.

    Raises:
        UserError: if a named file cannot be read, or is about other weights.
    """
    found = {}
    around = origin.run.path.rglob("evaluation_*.json") if origin.run is not None else ()
    for path in sorted(path for path in around if _weights_of(read_object(path)) == origin.digest):
        found[path.resolve()] = read_object(path)
    for path in files:
        content = read_object(path)
        if _weights_of(content) != origin.digest:
            raise UserError(
                f"--results {path}: expected an evaluation_*.json of {origin.path} (SHA-256 {origin.digest}), found "
                f"{_weights_of(content) or 'none'}. Export the file that was evaluated"
            )
        found[path.resolve()] = content
    return [_evaluation(path, content) for path, content in found.items()]


def _columns(run: Run, iterations: int | None) -> dict[str, int]:
    """Titles of columns and their rows in the scores; a row that is two of them has the first title."""
    steps = [int(step) for step in run.scores.iterations]
    best = best_score(run)
    wanted = {"these weights": iterations, "best teacher": best.iteration if best else None, "last": steps[-1]}
    found: dict[int, str] = {}
    for title, step in wanted.items():
        if step in steps:
            row = steps.index(step)
            found[row] = f"{found[row]}, {title}" if row in found else title
    return {f"{title} ({steps[row]:,} iterations)": row for row, title in found.items()}


def _shown(name: str, value: float) -> str:
    return shown_value(name, value) if math.isfinite(value) else ""


def _weights_of(content: Mapping[str, Any]) -> str:
    weights = content.get("weights")
    return str(weights.get("sha256") or "") if isinstance(weights, Mapping) else ""


def _evaluation(path: Path, content: Mapping[str, Any]) -> Evaluation:
    """The table of a results file.

    Raises:
        UserError: if it has not the fields of one.
    """
    try:
        rows = [
            Row(
                plain(row["set"]),
                plain(row["classifier"]),
                {name: Figure(**parts) for name, parts in row["metrics"].items() if parts["value"] is not None},
            )
            for row in content["results"]
        ]
        data = {name: f"{shortened(one['dataset'])}, {one['samples']:,} tiles" for name, one in content["data"].items()}
        return Evaluation(str(content["evaluation"]), data, markdown_table(rows))
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise UserError(f"{path} is no file of results of dinov2.eval: {error!r}") from error
