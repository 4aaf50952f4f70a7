"""Evaluations as SLURM jobs: the script, the mistakes that are found first, and a job that runs."""

import json
from importlib import import_module

import pytest
from eval_making import TINY, write_tiles

from dinov2.errors import UserError

DATA = ("--train-dataset", "CSV:file=query.csv:label=tissue", "--val-dataset", "CSV:file=val.csv:label=tissue")
COMMANDS = ("knn", "linear", "log_regression", "cross_validate")


def submit(name: str, *arguments: object) -> int:
    return import_module(f"dinov2.run.eval.{name}").main([*map(str, arguments), *TINY])


@pytest.mark.parametrize("name", COMMANDS)
def test_the_script(name, tmp_path, capsys):
    job = ("--ngpus", 2, "--timeout", 60, "--partition", "a100", "--dry-run")
    assert submit(name, "--untrained", *DATA, "--output-dir", tmp_path / "run", *job) == 0
    lines = set(capsys.readouterr().out.splitlines())
    assert {f"#SBATCH --job-name=dinov2:{name}", "#SBATCH --gpus-per-node=2", "#SBATCH --partition=a100"} <= lines
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", COMMANDS)
def test_mistakes_are_found_before_the_job_is_submitted(name, tmp_path, monkeypatch):
    with pytest.raises(UserError, match="there are no weights to evaluate"):
        submit(name, *DATA, "--output-dir", tmp_path / "run", "--dry-run")
    with pytest.raises(UserError, match="there is nothing to learn from"):
        submit(name, "--untrained", "--output-dir", tmp_path / "run", "--dry-run")
    with pytest.raises(UserError, match=r"weights file nowhere\.pth .*does not exist"):
        submit(name, "--output-dir", tmp_path / "run", "--dry-run", "--pretrained-weights", "nowhere.pth")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match=rf"sbatch and srun not found.*--nproc_per_node=4 -m dinov2\.eval\.{name} "):
        submit(name, "--untrained", *DATA, "--output-dir", tmp_path / "run", "--ngpus", 4)


def test_a_job_that_runs_here(tmp_path):
    tiles = f"ImageFolder:root={write_tiles(tmp_path / 'tiles')}"
    sizes = ("--resize-size", 28, "--crop-size", 28, "--num-workers", 0, "--resamples", 0)
    data = ("--train-dataset", tiles, "--val-dataset", tiles)
    assert submit("knn", "--untrained", *data, *sizes, "--output-dir", tmp_path / "run-%j", "--cluster", "debug") == 0
    (results,) = tmp_path.glob("run-*/evaluation_knn.json")
    assert "%" not in str(results)
    assert json.loads(results.read_text())["data"]["val"]["samples"] == 24
