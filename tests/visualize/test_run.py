"""The command, on runs of the training itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from runs import train

from dinov2.errors import UserError
from dinov2.visualize.run import get_args_parser, main

ROOT = Path(__file__).parents[2]


def report(*arguments: object) -> int:
    return main(get_args_parser().parse_intermixed_args(list(map(str, arguments))))


def test_the_report_of_a_training(image_folder, tmp_path, capsys):
    train(image_folder, tmp_path / "run", "optim.max_iter=3", "optim.warmup_pct=0.4", "train.save_frequency=0")
    capsys.readouterr()
    assert report(tmp_path / "run") == 0
    assert capsys.readouterr().out == f"{tmp_path / 'run' / 'report.html'}\n"
    text = (tmp_path / "run" / "report.html").read_text()
    for expected in (
        "finished",
        "3 of 3 (100%)",
        "vit_mini/14",
        "eval/training_2/teacher_checkpoint.pth",
        "clipped above",
    ):
        assert expected in text
    logged = json.loads((tmp_path / "run" / "training_metrics.json").read_text().splitlines()[0])
    assert "Other figures" not in text, f"no panel is planned for some of {sorted(logged)}"


def test_options_between_runs(make_run, tmp_path, capsys):
    report(make_run("a"), "--output", tmp_path / "x.html", make_run("b"), "--png-dir", tmp_path / "png")
    assert "Training report: a, b" in (tmp_path / "x.html").read_text()
    assert len(list((tmp_path / "png").iterdir())) == 5
    assert not (tmp_path / "a" / "report.html").exists()


def test_a_mistake_is_a_message(tmp_path):
    with pytest.raises(UserError, match="neither training_metrics.json nor timeline.json"):
        report(tmp_path)
    command = [sys.executable, "-m", "dinov2.visualize.run", str(tmp_path)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert found.returncode == 2
    assert found.stderr.startswith(f"error: {tmp_path} has neither")
    assert "Traceback" not in found.stderr
