"""What an evaluation leaves behind: evaluation_{name}.json with everything, a .csv and a .md with the figures."""

import csv
import io
import json
import math
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

import dinov2
from dinov2.distributed.outcomes import on_main
from dinov2.utils.atomic import write_text
from dinov2.utils.outputs import output_errors

from .bootstrap import bootstrap_intervals
from .metrics import Report, classification_report

PACKAGES = ("torch", "torchvision", "torchmetrics", "scikit-learn", "numpy")
# The figures of a .md table that any row has, in order, and their titles; the other files have all.
TITLES = {
    "acc": "accuracy",
    "bacc": "balanced accuracy",
    "f1_weighted": "weighted F1",
    "kappa": "kappa",
    "auc": "AUROC",
    "site_bacc": "site prediction",
    "site_bacc_by_chance": "by chance",
    "site_ratio": "class : site",
    "site_ratio_by_chance": "by chance",
}


@dataclass(frozen=True)
class Figure:
    """A figure of a classifier on a set; the parts that there is nothing to say about are None.

    Attributes:
        std: sample standard deviation over folds or tries, of which `value` is the mean.
        low, high: 95 % bootstrap interval.
    """

    value: float
    std: float | None = None
    low: float | None = None
    high: float | None = None

    @classmethod
    def over(cls, values: Sequence[float]) -> "Figure":
        """Mean and deviation of those of several values that are numbers; NaN where there are too few."""
        found = [value for value in values if not math.isnan(value)]
        mean = statistics.fmean(found) if found else math.nan
        return cls(mean, statistics.stdev(found) if len(found) > 1 else math.nan)


@dataclass(frozen=True)
class Row:
    """A classifier on a set of tiles."""

    set: str
    classifier: str
    figures: Mapping[str, Figure]
    report: Report | None = None
    notes: Mapping[str, Any] = field(default_factory=dict)

    def with_figures(self, values: Mapping[str, float]) -> "Row":
        """The row with more figures, of which only the value is known."""
        return replace(self, figures={**self.figures, **{name: Figure(value) for name, value in values.items()}})


def scored_row(
    name: str,
    classifier: str,
    scores: Tensor,
    labels: Tensor,
    *,
    classes: Sequence[str],
    groups: Tensor | None = None,
    resamples: int = 1000,
    notes: Mapping[str, Any] | None = None,
) -> Row:
    """The row of scores (n, C) for labels (n,), with intervals by group."""
    report = classification_report(scores, labels, classes)
    intervals = bootstrap_intervals(scores, labels, groups=groups, resamples=resamples) if resamples else {}
    figures = {
        metric: Figure(value, **(intervals[metric]._asdict() if intervals else {}))
        for metric, value in report.metrics.items()
    }
    return Row(name, classifier, figures, report, notes or {})


def spread_row(
    name: str,
    classifier: str,
    metrics: Sequence[Mapping[str, float]],
    *,
    notes: Mapping[str, Any] | None = None,
) -> Row:
    """The row of several models of one kind, from the figures of each."""
    figures = {metric: Figure.over([one[metric] for one in metrics]) for metric in metrics[0]}
    return Row(name, classifier, figures, notes=notes or {})


def write_results(folder: Path, name: str, record: Mapping[str, Any], rows: Sequence[Row]) -> None:
    """Write the three files; when this returns, on any rank, they are there.

    Args:
        record: what was evaluated how; date and versions are added.
    Raises:
        OutputError: on all ranks, if they cannot be written.
    """

    def write() -> None:
        content = {**_circumstances(), **record, "results": [_as_json(row) for row in rows]}
        write_text(folder / f"evaluation_{name}.json", json.dumps(_plain(content), indent=1) + "\n")
        write_text(folder / f"evaluation_{name}.csv", _as_csv(rows))
        write_text(folder / f"evaluation_{name}.md", markdown_table(rows))

    on_main(write)


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Add lines to a file of DINOv2's; all ranks call it."""

    def append() -> None:
        with output_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a", encoding="utf-8") as file:
                file.writelines(f"{line}\n" for line in lines)

    on_main(append)


def markdown_table(rows: Sequence[Row]) -> str:
    """Per cent, as "91.6 ± 0.2" over folds or tries and "[90.1, 92.8]" for an interval; kappa as it is."""
    shown_metrics = [metric for metric in TITLES if any(metric in row.figures for row in rows)]
    lines = [("set", "classifier", *(TITLES[metric] for metric in shown_metrics))]
    for row in rows:
        cells = (_cell(metric, row.figures[metric]) if metric in row.figures else "" for metric in shown_metrics)
        lines.append((row.set, row.classifier, *cells))
    widths = [max(map(len, column)) for column in zip(*lines)]
    shown = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths)) + " |" for line in lines]
    return "\n".join([shown[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *shown[1:]]) + "\n"


def _cell(metric: str, figure: Figure) -> str:
    scale, digits = (1, 3) if metric == "kappa" else (100, 1)
    text = f"{scale * figure.value:.{digits}f}"
    if figure.std is not None and not math.isnan(figure.std):
        text += f" ± {scale * figure.std:.{digits}f}"
    if figure.low is not None and figure.high is not None and not math.isnan(figure.low):
        text += f" [{scale * figure.low:.{digits}f}, {scale * figure.high:.{digits}f}]"
    return text


def _as_csv(rows: Sequence[Row]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("set", "classifier", "metric", "value", "std", "low", "high"))
    for row in rows:
        for metric, figure in row.figures.items():
            numbers = (figure.value, figure.std, figure.low, figure.high)
            writer.writerow((row.set, row.classifier, metric, *("" if _is_nothing(n) else f"{n:.6f}" for n in numbers)))
    return text.getvalue()


def _as_json(row: Row) -> dict[str, Any]:
    """A row without what does not apply to it."""
    figures = {
        metric: {part: number for part, number in asdict(figure).items() if part == "value" or not _is_nothing(number)}
        for metric, figure in row.figures.items()
    }
    content = {"set": row.set, "classifier": row.classifier, **row.notes, "metrics": figures}
    if row.report is not None:
        content["classes"] = [asdict(one) for one in row.report.classes]
        content["confusion"] = row.report.confusion
    return content


def _is_nothing(number: float | None) -> bool:
    return number is None or math.isnan(number)


def _plain(value: Any) -> Any:
    """JSON has no NaN."""
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _circumstances() -> dict[str, Any]:
    """When and with what."""
    versions = {"dinov2": dinov2.__version__, "python": platform.python_version()}
    versions |= {package: version(package) for package in PACKAGES}
    return {"date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "versions": versions}
