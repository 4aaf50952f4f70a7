"""Submitting to SLURM: what is asked for, what is refused, and that a requeued job goes on."""

import os
import pickle
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from crashes import COMPLETE, STEPS, outcome, report_every_step, run
from forks import exit_codes, forked, wait_until
from runs import ELSEWHERE, arguments
from submitit import JobEnvironment
from submitit.core.submission import process_job
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

from dinov2.errors import ExitCode, UserError
from dinov2.run.submit import Task, get_args_parser
from dinov2.run.train.train import TrainingTask, main
from dinov2.train import loop as loop_module
from dinov2.train import train as train_module

CONFIG = "dinov2/configs/train/vits14.yaml"
TRAINING = ["train.dataset_path=ImageFolder:root=/data"]


def script_of(capsys, output: object, *options: str) -> list[str]:
    """Lines of the batch script that a dry run prints."""
    assert main(["--output-dir", str(output), "--dry-run", *options, *TRAINING]) == 0
    return capsys.readouterr().out.splitlines()


def test_dry_run_shows_the_script_and_leaves_nothing_behind(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    lines = script_of(
        capsys,
        tmp_path / "run",
        *("--nodes", "2", "--ngpus", "4", "--timeout", "60", "--partition", "a100,h100", "--comment", "for the paper"),
        *("--exclude", "gpu[01-03,7]", "--qos", "long", "--account", "pathology", "--cpus-per-task", "12"),
        *("--mem-gb", "500", "--constraint", "nvlink&ib"),
    )
    options = {line for line in lines if line.startswith("#SBATCH")}
    assert options >= {
        "#SBATCH --nodes=2",
        "#SBATCH --gpus-per-node=4",
        "#SBATCH --ntasks-per-node=4",
        "#SBATCH --time=60",
        "#SBATCH --partition=a100,h100",
        "#SBATCH --comment='for the paper'",
        "#SBATCH --exclude='gpu[01-03,7]'",
        "#SBATCH --qos=long",
        "#SBATCH --account=pathology",
        "#SBATCH --cpus-per-task=12",
        "#SBATCH --mem=500GB",
        "#SBATCH --constraint='nvlink&ib'",
        "#SBATCH --signal=USR2@120",
        "#SBATCH --requeue",
        "#SBATCH --job-name=dinov2:train",
    }
    command = shlex.split(lines[-1])
    assert command[0] == "srun"
    assert command[-3:] == ["-m", "submitit.core._submit", str(tmp_path / "run" / "slurm")]
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("flag", ["--ngpus", "--gpus", "--gpus-per-node"])
@pytest.mark.parametrize("nodes", ["--nodes", "--nnodes"])
def test_options_of_dinov2(flag, nodes, tmp_path, capsys):
    lines = script_of(capsys, tmp_path, flag, "2", nodes, "3", "--use-volta32")
    assert {"#SBATCH --gpus-per-node=2", "#SBATCH --nodes=3", "#SBATCH --constraint=volta32gb"} <= set(lines)


def test_defaults_are_those_of_dinov2(tmp_path, capsys):
    lines = set(script_of(capsys, tmp_path))
    assert {"#SBATCH --gpus-per-node=8", "#SBATCH --nodes=1", "#SBATCH --time=2800", "#SBATCH --mem=0GB"} <= lines
    assert not any(line.startswith(("#SBATCH --partition", "#SBATCH --comment")) for line in lines)


def test_no_gpus(tmp_path, capsys):
    lines = script_of(capsys, tmp_path, "--ngpus", "0")
    assert "#SBATCH --ntasks-per-node=1" in lines
    assert not any("gpus-per-node" in line for line in lines)


@pytest.mark.parametrize("option", ["--comment", "--exclude", "--partition"])
def test_what_could_mean_something_to_a_shell_is_refused(option, tmp_path):
    with pytest.raises(UserError, match=option):
        main(["--output-dir", str(tmp_path), "--dry-run", f"{option}=$(reboot)", *TRAINING])


@pytest.mark.parametrize("folder", ["run\nreboot", "run/%x", "run\\", "run/%%j"])
def test_output_folders_that_are_refused(folder):
    with pytest.raises(UserError, match="--output-dir"):
        main(["--output-dir", folder, "--dry-run", *TRAINING])


def test_mistakes_of_the_training_are_found_before_the_job_is_submitted(tmp_path):
    with pytest.raises(UserError, match="did you mean optim.epochs"):
        main(["--output-dir", str(tmp_path), "--dry-run", *TRAINING, "optim.epoch=3"])
    with pytest.raises(UserError, match=r"nowhere.yaml"):
        main(["--output-dir", str(tmp_path), "--dry-run", *TRAINING, "--config-file", "nowhere.yaml"])


def test_without_slurm_torchrun_is_named(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        UserError, match=r"sbatch and srun not found.*torchrun --nproc_per_node=4 dinov2/train/train.py"
    ):
        main(["--output-dir", str(tmp_path / "run"), "--ngpus", "4", *TRAINING])
    assert not (tmp_path / "run").exists()


def program(path: Path, body: str) -> None:
    path.write_text(f"#!/bin/bash\n{body}\n")
    path.chmod(0o755)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of programs that look like SLURM's and write down how they were called."""
    folder = tmp_path / "slurm programs"
    folder.mkdir()
    program(
        folder / "sbatch",
        f'printf "%s\\n" "$@" > {shlex.quote(str(folder / "sbatch.txt"))}; echo "Submitted batch job 4711"',
    )
    program(folder / "srun", f'printf "%s\\n" "$@" > {shlex.quote(str(folder / "srun.txt"))}')
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return folder


def test_a_job_is_submitted_with_its_own_output_folder(tmp_path, slurm, capsys):
    output = tmp_path / "runs of $(touch hacked); 'me" / "%j"
    assert main(["--output-dir", str(output), "--ngpus", "1", *TRAINING]) == 0
    folder = Path(str(output).replace("%j", "4711"), "slurm")
    assert (
        capsys.readouterr().out
        == f"job 4711; it writes to {folder / '4711_0_log.out'} and {folder / '4711_0_log.err'}\n"
    )
    task = pickle.loads((folder / "4711_submitted.pkl").read_bytes()).function
    assert isinstance(task, TrainingTask)
    assert task.args.output_dir == str(output)

    # The script runs as one command with literal arguments, whatever the folder is called.
    (script,) = folder.glob("*submission.sh")
    subprocess.run(["bash", script], cwd=tmp_path, check=True, timeout=20)
    called = (slurm / "srun.txt").read_text().splitlines()
    assert called[-4:] == ["-u", "-m", "submitit.core._submit", str(output / "slurm")]
    assert called[called.index("--output") + 1] == str(output / "slurm" / "%j_%t_log.out")
    assert not (tmp_path / "hacked").exists()


def submitted(folder: Path, command: list[str]) -> None:
    """Leave a task where submitit's processes look for it."""
    from submitit.helpers import DelayedSubmission

    parser = get_args_parser(parents=[train_module.get_args_parser(add_help=False)])
    delayed = DelayedSubmission(TrainingTask(parser.parse_intermixed_args(command)))
    delayed.set_timeout(timeout_min=60, max_num_timeout=3)
    folder.mkdir(parents=True)
    delayed.dump(folder / "17_submitted.pkl")


def job_process(
    rank: int, folder: Path, tasks: int, stop_after: int | None, number: int, cluster: str = "local"
) -> None:
    """A process of job 17 as submitit's executors start it; after some steps its last one is asked to stop."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        os.environ.pop(name, None)
    os.environ.update(
        SUBMITIT_EXECUTOR=cluster,
        SUBMITIT_LOCAL_JOB_ID="17",
        SUBMITIT_LOCAL_NTASKS=str(tasks),
        SUBMITIT_LOCAL_GLOBALID=str(rank),
        SUBMITIT_LOCAL_LOCALID=str(rank),
    )
    report_every_step(rank)
    step, taken = loop_module.train_step, []

    def counted(*args, **kwargs):
        figures = step(*args, **kwargs)
        taken.append(None)
        if len(taken) == stop_after and rank == tasks - 1:
            os.kill(os.getpid(), number)
        return figures

    loop_module.train_step = counted
    process_job(folder)


@pytest.mark.thorough  # 7 s
def test_five_requeues_end_where_an_uninterrupted_run_ends(image_folder, tmp_path):
    whole, broken, folder = tmp_path / "whole", tmp_path / "job-17", tmp_path / "slurm"
    assert run(arguments(image_folder, whole, *COMPLETE), tmp_path / "logs") == [0]
    # That it starts over must not be repeated after a requeue.
    lean = ["train.save_frequency=0", "train.num_workers=0"]
    submitted(folder, ["--no-resume", *arguments(image_folder, tmp_path / "job-%j", *COMPLETE, *lean)])
    for number in range(5):
        logs = tmp_path / f"logs{number}"
        with forked(job_process, folder, 1, 2, signal.SIGUSR2, logs=logs) as processes:
            assert exit_codes(processes, 60) == [LOCAL_REQUEUE_RETURN_CODE], (logs / "rank0.txt").read_text()
    with forked(job_process, folder, 1, None, signal.SIGUSR2, logs=tmp_path / "logs5") as processes:
        assert exit_codes(processes, 60) == [0]
    assert pickle.loads((folder / "17_0_result.pkl").read_bytes()) == ("success", None)
    assert STEPS == 5 * 2 + 2
    assert not (broken / "before-1").exists()  # where a run that starts over puts what is there
    assert outcome(broken)[:3] == outcome(whole)[:3]


@pytest.mark.parametrize(
    ("number", "codes"),
    [
        (signal.SIGUSR2, [LOCAL_REQUEUE_RETURN_CODE, 0]),
        (signal.SIGTERM, [ExitCode.INTERRUPTED, ExitCode.INTERRUPTED]),  # SLURM requeues by itself, or someone cancels
    ],
)
def test_one_process_requeues_a_job_of_two(number, codes, image_folder, tmp_path):
    folder, output = tmp_path / "slurm", tmp_path / "run"
    submitted(folder, arguments(image_folder, output, *COMPLETE, "train.num_workers=0", "train.batch_size_per_gpu=2"))
    before = (folder / "17_submitted.pkl").stat().st_mtime_ns
    with forked(job_process, folder, 2, 3, number, ranks=2, logs=tmp_path / "logs") as processes:
        assert exit_codes(processes, 60) == codes, (tmp_path / "logs" / "rank0.txt").read_text()
    assert (output / "checkpoints" / "step-0000003").is_dir()
    logs = [(tmp_path / "logs" / f"rank{rank}.txt").read_text() for rank in range(2)]
    assert [text.count("Requeued job 17") for text in logs] == [int(number == signal.SIGUSR2), 0]
    assert ((folder / "17_submitted.pkl").stat().st_mtime_ns > before) == (number == signal.SIGUSR2)
    assert not list(folder.glob("*_result.pkl"))


def test_a_preempted_job_waits_for_slurm(slurm, image_folder, tmp_path):
    """SLURM requeues no job that has ended by itself; submitit's signal is still heard after the state is saved."""
    program(slurm / "scontrol", f'printf "%s " "$@" >> {shlex.quote(str(slurm / "scontrol.txt"))}')
    folder, output, logs = tmp_path / "jobs", tmp_path / "run", tmp_path / "logs"
    submitted(folder, arguments(image_folder, output, *COMPLETE, "train.num_workers=0"))

    def in_slurm(rank):
        os.environ.update(SLURM_JOB_ID="17", SLURM_NTASKS="1", SLURM_JOB_NUM_NODES="1", SLURM_PROCID="0")
        job_process(rank, folder, 1, 3, signal.SIGTERM, cluster="slurm")

    with forked(in_slurm, logs=logs) as processes:
        wait_until(lambda: "saved after 3 iterations" in (logs / "rank0.txt").read_text())
        assert exit_codes(processes, 1) == [None]
        os.kill(processes[0].pid, signal.SIGTERM)
        os.kill(processes[0].pid, signal.SIGUSR2)
        assert exit_codes(processes, 30) == [255], (logs / "rank0.txt").read_text()
    assert (slurm / "scontrol.txt").read_text() == "requeue 17 "


class Recorded(Task):
    """A task that only remembers what it was run with."""

    def run(self, args):
        self.seen = (args.output_dir, {name: os.environ.get(name) for name in ("RANK", "WORLD_SIZE", "MASTER_ADDR")})


def test_processes_of_a_job_find_each_other(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("SUBMITIT_EXECUTOR", "slurm")
    for name, value in {
        "SLURM_JOB_ID": "8",
        "SLURM_NTASKS": "16",
        "SLURM_JOB_NUM_NODES": "2",
        "SLURM_NODEID": "1",
        "SLURM_PROCID": "9",
        "SLURM_LOCALID": "1",
        "SLURM_JOB_NODELIST": "gpu[07-08]",
    }.items():
        monkeypatch.setenv(name, value)
    assert JobEnvironment().cluster == "slurm"
    args = get_args_parser().parse_args([])
    args.output_dir = "runs/%j"
    task = Recorded(args)
    task()
    assert task.seen == ("runs/8", {"RANK": "9", "WORLD_SIZE": "16", "MASTER_ADDR": "gpu07"})
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "1")
    task()
    assert task.seen[1]["MASTER_ADDR"] == "127.0.0.1"


@pytest.mark.parametrize(("restarts", "no_resume"), [("0", True), ("2", False)])
def test_a_job_that_slurm_began_again_goes_on(restarts, no_resume, monkeypatch):
    seen = []
    monkeypatch.setattr(train_module, "main", lambda args: seen.append(args.no_resume))
    monkeypatch.setenv("SLURM_RESTART_COUNT", restarts)
    args = train_module.get_args_parser().parse_intermixed_args(["--no-resume"])
    TrainingTask(args).run(args)
    assert seen == [no_resume]


@pytest.mark.parametrize("cluster", ["local", "debug"])
@pytest.mark.slow  # 15 s: starts a process that imports torch
def test_jobs_without_slurm(cluster, image_folder, tmp_path):
    command = [sys.executable, "-m", "dinov2.run.train.train", "--cluster", cluster, "--ngpus", "0"]
    found = subprocess.run(
        [*command, *arguments(image_folder, tmp_path / "run-%j", ELSEWHERE, "optim.max_iter=1", "optim.warmup_pct=0")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert found.returncode == 0, found.stderr
    assert list(tmp_path.glob("run-*/checkpoints/step-0000001"))


def test_a_backbone_that_there_is_not_is_told_before_the_job_waits(tmp_path):
    with pytest.raises(UserError, match="unknown student.arch 'vit_smal': did you mean vit_small"):
        main(["--output-dir", str(tmp_path / "run"), "--dry-run", "student.arch=vit_smal"])
