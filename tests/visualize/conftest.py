"""Folders of runs, written by rule."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Row = dict[str, Any]
TIMELINE = {"total": 100, "warmup": 10, "freeze_last_layer": 10, "teacher_temp_warmup": 200}


def write_lines(path: Path, rows: list[Row]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def metric_rows(count: int = 11) -> list[Row]:
    """Reports of iterations 0, 10, 20, ... and of the last one, 99 if there are eleven."""
    names = ("lr", "wd", "mom", "teacher_temp", "koleo_loss", "grad_norm_backbone", "cls_std")
    return [
        {
            "iteration": min(10 * i, 10 * (count - 1) - 1),
            "iter_time": 2.0,
            "data_time": 0.5,
            "total_loss": 10.0 - i,
            **dict.fromkeys(names, 0.1 + i),
            "current_batch_size": 8.0,
            "tiles_per_second": 16.0,
            "data_wait_share": 0.25,
        }
        for i in range(count)
    ]


@pytest.fixture
def make_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes the folder of a run in tmp_path, finished after 100 iterations unless told otherwise."""

    def make(
        name: str = "run",
        *,
        metrics: list[Row] | None = None,
        scores: list[Row] | None = None,
        timeline: Row | None = None,
        config: str = "train:\n  seed: 3\n  output_dir: somewhere\nstudent:\n  arch: vit_small\n  patch_size: 14\n",
    ) -> Path:
        folder = tmp_path / name
        write_lines(folder / "training_metrics.json", metric_rows() if metrics is None else metrics)
        if scores is not None:
            write_lines(folder / "results" / "tune.jsonl", scores)
        (folder / "timeline.json").write_text(json.dumps(TIMELINE if timeline is None else timeline))
        (folder / "config.yaml").write_text(config)
        return folder

    return make
