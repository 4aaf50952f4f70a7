"""What a run has left in its folder, read while it goes on or after it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.errors import UserError
from dinov2.train.checkpoint.retention import steps_on_disk
from dinov2.visualize.run_check import METRICS, TIMELINE, check_is_run

from .json_lines import Columns, Row, read_columns, read_rows
from .settings import Settings, read_settings

CONFIG = "config.yaml"
SCORES, BAD_TILES = "results/tune.jsonl", "results/bad_tiles.jsonl"
NONFINITE = "results/nonfinite_*.json"
EXPORTS = "eval/*/teacher_checkpoint.pth"


@dataclass(frozen=True)
class Run:
    """A run as its files tell it.

    Attributes:
        label: the shortest end of the path that no other run of the report has.
        metrics, scores: of training_metrics.json, by iteration from 0, and of tune.jsonl, by steps taken.
        timeline: durations in iterations, see `train.schedules.Timeline`; empty where the file is missing.
        nonfinite: files about steps that gave no finite number, ascending.
        checkpoints: steps, ascending.
        exports: teacher files, the newest last.
        changed: when something was last written, in seconds since 1970.
    """

    path: Path
    label: str
    metrics: Columns
    scores: Columns
    timeline: dict[str, int]
    settings: Settings
    bad_tiles: list[Row]
    nonfinite: list[Path]
    checkpoints: list[int]
    exports: list[Path]
    changed: float
    notes: tuple[str, ...] = ()

    @property
    def steps(self) -> int:
        """Steps that are known to be taken."""
        reported = int(self.metrics.iterations[-1]) + 1 if len(self.metrics) else 0
        scored = int(self.scores.iterations[-1]) if len(self.scores) else 0
        return max(reported, scored, *self.checkpoints, 0)

    @property
    def total(self) -> int | None:
        """Steps of the whole training, None where it is not known."""
        return self.timeline.get("total")


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read the folders of runs.

    Raises:
        UserError: if one of them is no run's folder, cannot be read or is given twice.
    """
    resolved = [folder.resolve() for folder in folders]
    twice = next((folder for folder in resolved if resolved.count(folder) > 1), None)
    if twice is not None:
        raise UserError(f"{twice} is given twice; name every run once")
    try:
        return [_read_run(folder, _label(folder, resolved)) for folder in resolved]
    except OSError as error:
        raise UserError(f"a file of the run cannot be read: {error}") from error


def _read_run(folder: Path, label: str) -> Run:
    check_is_run(folder)
    metrics, scores = read_columns(folder / METRICS), read_columns(folder / SCORES)
    bad_tiles = list(read_rows(folder / BAD_TILES))
    settings = read_settings(folder / CONFIG)
    notes = [
        f"{count:,} line(s) of {name} cannot be read and are left out"
        for name, count in ((METRICS, metrics.damaged), (SCORES, scores.damaged), (BAD_TILES, bad_tiles.count(None)))
        if count
    ]
    notes += [f"{CONFIG} {settings.fault}"] if settings.fault else []
    return Run(
        path=folder,
        label=label,
        metrics=metrics,
        scores=scores,
        timeline=_read_timeline(folder / TIMELINE),
        settings=settings,
        bad_tiles=[row for row in bad_tiles if row is not None],
        nonfinite=sorted(folder.glob(NONFINITE)),
        checkpoints=steps_on_disk(folder / "checkpoints"),
        exports=sorted(folder.glob(EXPORTS), key=_time),
        changed=max(map(_time, _written_files(folder)), default=0.0),
        notes=tuple(notes),
    )


def _label(folder: Path, folders: Sequence[Path]) -> str:
    parts = folder.parts
    for length in range(1, len(parts)):
        ending = parts[-length:]
        if sum(other.parts[-length:] == ending for other in folders) == 1:
            return "/".join(ending)
    return str(folder)


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object; empty if the file is missing or is none, as where its writer was killed."""
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _read_timeline(path: Path) -> dict[str, int]:
    return {name: value for name, value in read_object(path).items() if isinstance(value, int)}


def _written_files(folder: Path) -> list[Path]:
    """What a training writes to as it goes on."""
    return [folder / METRICS, folder / TIMELINE, folder / SCORES, folder / "checkpoints", *folder.glob("logs/*")]


def _time(path: Path) -> float:
    """When a file was last written; 0 where there is none."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
