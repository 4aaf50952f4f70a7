"""What a finished training says: why it ended, how its scores went, which teacher to take, and how to go on."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from shlex import quote

from dinov2.configs.tune_scores import TEACHER

from .early_stopping import EarlyStopping

MOST_SCORES = 12  # that are listed


def describe_outcome(
    tracked: EarlyStopping, *, iteration: int, total: int, output_dir: Path, tiles: Sequence[str] = ("...", "...")
) -> str:
    """Several lines about a training that has ended after `iteration` of `total` steps.

    Args:
        tiles: data set strings of labelled query and test tiles.
    """
    rows = _rows(output_dir / "results" / "tune.jsonl")
    best = output_dir / "eval" / "best" / "teacher_checkpoint.pth"
    last = output_dir / "eval" / f"training_{iteration - 1}" / "teacher_checkpoint.pth"
    lines = [f"training ended after {iteration:,} of {total:,} iterations{_reason(tracked)}"]
    lines += _courses(rows, tracked)
    if best.is_file():
        lines.append(
            f"best teacher, by {tracked.score_name} (tune.early_stopping.tracking), of iteration "
            f"{tracked.best_iteration:,}{'' if tracked.best_iteration else ' (before the first step)'}: {best}"
        )
    lines.append(f"last teacher: {last}")
    weights = quote(str(best if best.is_file() else last))
    lines += [
        "how to go on:",
        f"python -m dinov2.visualize.run {quote(str(output_dir))}",
        f"python -m dinov2.eval.knn --config-file {quote(str(output_dir / 'config.yaml'))} "
        f"--pretrained-weights {weights} --output-dir {quote(str(output_dir / 'knn'))} --train-dataset "
        f"{quote(tiles[0])} --val-dataset {quote(tiles[1])}",
        f"python -m dinov2.hub export --weights {weights} --to timm --output {quote(str(output_dir / 'timm'))}",
    ]
    if tracked.stopped:
        lines.append(
            "the same training command with tune.early_stopping.enable=false trains to the end of the schedule"
        )
    return "\n  ".join(lines)


def _reason(tracked: EarlyStopping) -> str:
    if not tracked.stopped:
        return ""
    return (
        f", by early stopping: {tracked.score_name} was best after {tracked.best_iteration:,} "
        f"({tracked.best_score:.4g}) and has not improved in the {tracked.newest - tracked.best_iteration:,} "
        f"iterations since (patience: {tracked.patience:,})"
    )


def _courses(rows: Sequence[Mapping[str, float]], tracked: EarlyStopping) -> list[str]:
    """How the teacher's balanced accuracies and the tracked score went, from the first to the last evaluation."""
    if len(rows) < 2:
        return []
    first, last = rows[0], rows[-1]
    common = [name for name in first if name in last and name != "iteration"]
    shown = [name for name in common if name == tracked.score_name or _is_shown(name)][:MOST_SCORES]
    lines = []
    for name in shown:
        way = "rose" if last[name] > first[name] else "fell" if last[name] < first[name] else "stayed"
        top = max((row for row in rows if name in row), key=lambda row: row[name])
        lines.append(
            f"{name} {way}: {first[name]:.4g} after {first['iteration']:,} iterations, {last[name]:.4g} at the end, "
            f"highest {top[name]:.4g} after {top['iteration']:,}"
        )
    fell = sum(last[name] < first[name] for name in shown)
    if fell:
        lines.append(
            f"{fell} of these {len(shown)} fell. The best teacher is chosen by {tracked.score_name} alone, as "
            f"tune.early_stopping.tracking says{'' if tracked.keeps_best else '; tune.keep_best=true keeps it'}"
        )
    return lines


def _is_shown(name: str) -> bool:
    """Whether a score is a balanced accuracy of the teacher, not the end of an interval."""
    figure = name.partition(f"{TEACHER}.")[2]
    return "bacc" in figure and not figure.startswith("site_") and not figure.endswith(("_low", "_high"))


def _rows(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.is_file() else []
