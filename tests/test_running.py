"""What docs/running.md tells people to type works, and what it says about settings and statuses is so."""

import os
import re
import shlex
import signal
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config
from dinov2.errors import ExitCode
from dinov2.run.train.train import main as submit
from dinov2.train.train import get_args_parser
from dinov2.utils.cli import ENDING
from dinov2.utils.config import get_cfg_from_args

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "running.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)


def block(containing: str) -> str:
    """The code block that contains a text."""
    (found,) = [text for text in BLOCKS if containing in text]
    return found


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.mark.parametrize("start", ["python dinov2", "torchrun --standalone", "torchrun --nnodes", "srun --kill"])
def test_training_commands_are_understood(start):
    from torch.distributed.run import get_args_parser as get_torchrun_parser

    command = re.search(rf"^{start}.*?(?<!\\)\n", TEXT, re.MULTILINE | re.DOTALL).group()
    words = shlex.split(command.replace("\\\n", " "))
    script = words.index("dinov2/train/train.py")
    if words[0] == "torchrun":
        launch = get_torchrun_parser().parse_args(words[1:])
        assert launch.training_script == "dinov2/train/train.py"
        assert launch.nproc_per_node == "8"
    cfg = get_cfg_from_args(get_args_parser().parse_intermixed_args(words[script + 1 :]))
    assert cfg.train.dataset_path


def test_the_submission_is_understood(capsys):
    words = shlex.split(block("-m dinov2.run.train.train").replace("\\\n", " "))
    assert words[:3] == ["python", "-m", "dinov2.run.train.train"]
    assert submit([*words[3:], "--dry-run"]) == 0
    script = capsys.readouterr().out
    assert "#SBATCH --nodes=2\n" in script
    assert "#SBATCH --time=1440\n" in script


@pytest.mark.parametrize(("status", "requeued"), [(0, False), (75, True), (1, False), (76, False)])
def test_the_batch_script_requeues_what_was_interrupted(status, requeued, tmp_path):
    for name, body in {"srun": f"exit {status}", "scontrol": f'echo "$@" > {tmp_path}/scontrol.txt'}.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "SLURM_JOB_ID": "4711"}
    found = subprocess.run(["bash", "-c", block("scontrol requeue")], env=environment, timeout=20, check=False)
    assert found.returncode == status
    asked = tmp_path / "scontrol.txt"
    assert (asked.read_text() if asked.exists() else None) == ("requeue 4711\n" if requeued else None)


def test_the_table_of_statuses_is_complete():
    table = TEXT.split("## Exit status")[1].split("##")[0]
    listed = [int(status) for row in re.findall(r"^\| ([\d, ]+) \|", table, re.M) for status in row.split(", ")]
    assert sorted(listed) == sorted([*ExitCode, *(128 + number for number in (*ENDING, signal.SIGPIPE))])


def test_the_table_of_limits_is_right():
    defaults = complete_config({})
    limits = re.findall(r"^\| `(train\.\w+_timeout)` \| (\d+) s \|", TEXT, re.M)
    assert len(limits) == 4
    assert {key: float(seconds) for key, seconds in limits} == {
        key: OmegaConf.select(defaults, key) for key, _ in limits
    }


def test_options_of_the_table_exist():
    from dinov2.run.submit import get_args_parser as get_job_parser

    table = TEXT.split("| option |")[1].split("\n\n")[0]
    known = get_job_parser()._option_string_actions
    named = re.findall(r"`(--[\w-]+)", table)
    assert len(named) > 10
    assert [option for option in named if option not in known] == []
