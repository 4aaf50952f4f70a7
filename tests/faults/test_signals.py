"""Signals to stop, at every place of a training, to one rank and to all: no finished step is lost."""

import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import children_of, end, exit_codes, forked, is_running, read_without_end, run_training, wait_until
from ranks import free_port
from runs import ELSEWHERE, arguments, train

from dinov2.data.datasets import ImageFolderDataset
from dinov2.data.training_view import TrainingView
from dinov2.errors import ExitCode
from dinov2.train import hooks as hooks_module
from dinov2.train import loop as loop_module
from dinov2.train.checkpoint import Checkpointer
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.tuning import Tuner

ROOT = Path(__file__).resolve().parents[2]
STEPS = 40  # more than any of these trainings takes

# Where a signal arrives: a function that is called there, and which of its calls it is.
PLACES: dict[str, tuple[object, str, int]] = {
    "data wait": (TrainingView, "__getitem__", 6),
    "forward": (SSLMetaArch, "forward_backward", 3),
    "backward": (torch.Tensor, "backward", 3),
    "save": (Checkpointer, "save", 2),
    "evaluation": (Tuner, "__call__", 2),
    # 2 networks read 12 of 24 query and test tiles each before training, which reads 2 in each of 2 steps.
    "data wait of an evaluation": (ImageFolderDataset, "get_target", 2 * (12 + 12) + 4 + 3),
    "export": (hooks_module, "export_networks", 2),
}


def training(images: Path, output: Path, *overrides: str) -> list[str]:
    """Arguments of a training that exports and saves every other step."""
    return arguments(
        images,
        output,
        *(f"optim.max_iter={STEPS}", "evaluation.eval_period_iterations=2"),
        *("train.batch_size_per_gpu=2", "train.keep_last=0"),
        *overrides,
    )


def evaluations(images: Path) -> list[str]:
    """Settings of an evaluation every other step."""
    sets = [f'tune.{name}_dataset_path=ImageFolder:root="{images}"' for name in ("query", "test")]
    sizes = ["tune.tile_size=28", "tune.crop_size=28", "tune.knn.nb_knn=[1]", "tune.knn.batch_size=6"]
    return [*sets, *sizes, "tune.tune_every_iterations=2"]


def signal_at(place: str, signals: list[int], ranks: list[int], output: Path) -> Callable[[int], None]:
    """What sends `signals` to some ranks from inside a place, and counts the steps that every rank finishes."""
    owner, name, which = PLACES[place]
    original = getattr(owner, name)
    calls = []

    def interrupted(*args, **kwargs):
        calls.append(None)
        if len(calls) == which:
            for number in signals:
                os.kill(os.getpid(), number)
            if place.startswith("data wait"):
                time.sleep(60)  # storage that does not answer; the signal has to end the wait
        return original(*args, **kwargs)

    def prepare(rank: int) -> None:
        count_steps(output.with_name(f"{output.name}.steps{rank}"))
        if rank in ranks:
            setattr(owner, name, interrupted)

    return prepare


def count_steps(path: Path) -> None:
    """Append a byte to a file for every finished step."""
    step = loop_module.train_step

    def counted(*args, **kwargs):
        figures = step(*args, **kwargs)
        with path.open("a") as file:
            file.write(".")
        return figures

    loop_module.train_step = counted


def finished_steps(output: Path, ranks: int) -> list[int]:
    files = (output.with_name(f"{output.name}.steps{rank}") for rank in range(ranks))
    return [len(file.read_text()) if file.exists() else 0 for file in files]


def assert_saved(output: Path, logs: Path, ranks: int) -> None:
    """Every finished step is in the newest checkpoint, which is whole; and the log says how to go on."""
    (steps,) = set(finished_steps(output, ranks))
    saved = Checkpointer(output / "checkpoints").load_newest()
    assert saved is not None
    assert saved.values["iteration"] == steps < STEPS
    assert f"saved after {steps} iterations" in (logs / "rank0.txt").read_text()


COMBINATIONS = list(itertools.product((signal.SIGTERM, signal.SIGUSR2), ("one rank", "all ranks"), PLACES))
# One of these for every place, and some more; all others take 50 s.
QUICK = [
    *((signal.SIGTERM, "one rank", place) for place in PLACES),
    *((signal.SIGUSR2, "all ranks", place) for place in ("data wait", "save", "evaluation")),
]


@pytest.mark.parametrize(
    ("number", "to", "place"),
    [pytest.param(*which, marks=() if which in QUICK else pytest.mark.slow) for which in COMBINATIONS],
)
def test_no_finished_step_is_lost(number, to, place, image_folder, tmp_path):
    output, logs = tmp_path / "run", tmp_path / "logs"
    prepare = signal_at(place, [number], [1] if to == "one rank" else [0, 1], output)
    command = training(image_folder, output, *(evaluations(image_folder) if "evaluation" in place else []))
    with forked(run_training, command, prepare, ranks=2, logs=logs) as processes:
        assert exit_codes(processes, 60) == [ExitCode.INTERRUPTED] * 2, (logs / "rank0.txt").read_text()
    assert_saved(output, logs, 2)
    assert number.name in (logs / "rank0.txt").read_text().splitlines()[-1]


def test_a_second_signal_while_the_state_is_saved(image_folder, tmp_path):
    output, logs = tmp_path / "run", tmp_path / "logs"
    first = signal_at("forward", [signal.SIGTERM, signal.SIGTERM], [0], output)

    def prepare(rank):
        first(rank)
        fsync = os.fsync

        def interrupted_fsync(descriptor):
            if finished_steps(output, 1) == [3]:
                os.kill(os.getpid(), signal.SIGTERM)
                os.kill(os.getpid(), signal.SIGUSR2)
            fsync(descriptor)

        os.fsync = interrupted_fsync

    options = ["train.save_frequency=0", "evaluation.eval_period_iterations=0"]
    with forked(run_training, training(image_folder, output, *options), prepare, logs=logs) as processes:
        assert exit_codes(processes, 60) == [ExitCode.INTERRUPTED]
    assert_saved(output, logs, 1)
    assert "SIGTERM, SIGUSR2" in (logs / "rank0.txt").read_text()


def test_ctrl_c_once_saves_and_twice_ends_at_once(image_folder, tmp_path):
    once, twice, logs = tmp_path / "once", tmp_path / "twice", tmp_path / "logs"
    prepare = signal_at("forward", [signal.SIGINT], [0], once)
    with forked(run_training, training(image_folder, once), prepare, logs=logs) as processes:
        assert exit_codes(processes, 60) == [ExitCode.INTERRUPTED]
    assert_saved(once, logs, 1)
    prepare = signal_at("forward", [signal.SIGINT, signal.SIGINT], [0], twice)
    with forked(run_training, training(image_folder, twice), prepare, logs=logs) as processes:
        assert exit_codes(processes, 60) == [-signal.SIGINT]
    assert finished_steps(twice, 1) == [2]


def test_a_finished_run_that_is_asked_to_stop_is_finished(image_folder, tmp_path):
    output, logs = tmp_path / "run", tmp_path / "logs"
    save = Checkpointer.save

    def prepare(rank):
        def interrupted_save(self, state, step, *args, **kwargs):
            if step == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            save(self, state, step, *args, **kwargs)

        Checkpointer.save = interrupted_save

    with forked(run_training, training(image_folder, output, "optim.max_iter=4"), prepare, logs=logs) as processes:
        assert exit_codes(processes, 60) == [ExitCode.DONE]
    assert (output / "checkpoints" / "step-0000004").is_dir()


def test_an_evaluation_that_was_broken_off_is_made_up_for(image_folder, tmp_path):
    whole, broken, logs = tmp_path / "whole", tmp_path / "broken", tmp_path / "logs"
    options = [
        *evaluations(image_folder),
        "optim.max_iter=4",
        "tune.early_stopping.enable=true",
        "tune.early_stopping.tracking=bacc_1",
    ]
    train(*(image_folder, whole), *training(image_folder, whole, *options)[4:])
    prepare = signal_at("evaluation", [signal.SIGTERM], [0], broken)  # of the teacher after two steps
    with forked(run_training, training(image_folder, broken, *options), prepare, logs=logs) as processes:
        assert exit_codes(processes, 60) == [ExitCode.INTERRUPTED]
    assert_saved(broken, logs, 1)
    train(*(image_folder, broken), *training(image_folder, broken, *options)[4:])
    # The evaluation stops the run, which must not take another step.
    for folder in ("results", "eval", "checkpoints"):
        files = [sorted(path.relative_to(run) for path in (run / folder).rglob("*")) for run in (whole, broken)]
        assert files[0] == files[1] != []
    tuned = Path("results", "tune.jsonl")
    assert (broken / tuned).read_text() == (whole / tuned).read_text()


def test_workers_that_are_stuck_do_not_keep_the_state_from_being_saved(image_folder, tmp_path):
    output, logs = tmp_path / "run", tmp_path / "logs"
    options = ["train.num_workers=1", "train.save_frequency=0"]
    stuck = read_without_end(tmp_path / "fifo")

    def prepare(rank):
        count_steps(output.with_name(f"{output.name}.steps{rank}"))
        stuck(rank)

    command = training(image_folder, output, *options)
    with forked(run_training, command, prepare, logs=logs) as processes:
        wait_until(lambda: finished_steps(output, 1)[0] >= 2)  # the third batch is what never comes
        os.kill(processes[0].pid, signal.SIGTERM)
        assert exit_codes(processes, 60) == [ExitCode.INTERRUPTED]
    assert_saved(output, logs, 1)


def test_a_signal_to_the_whole_job_spares_the_workers_until_the_state_is_saved(image_folder, tmp_path):
    output, logs = tmp_path / "run", tmp_path / "logs"
    options = ["train.num_workers=2"]

    def own_group(rank):
        count_steps(output.with_name(f"{output.name}.steps{rank}"))
        os.setpgid(0, 0)

    with forked(run_training, training(image_folder, output, *options), own_group, logs=logs) as processes:
        wait_until(lambda: finished_steps(output, 1)[0] >= 2)
        workers = children_of(processes[0].pid)
        assert len(workers) == 2
        for number in (signal.SIGTERM, signal.SIGUSR1, signal.SIGTERM):
            os.killpg(processes[0].pid, number)
        assert exit_codes(processes, 60) == [ExitCode.INTERRUPTED], (logs / "rank0.txt").read_text()
        wait_until(lambda: not any(map(is_running, workers)), 10)
    assert_saved(output, logs, 1)
    assert "ForkProcess" not in (logs / "rank0.txt").read_text()


@pytest.mark.slow  # 25 s: torchrun starts processes that import torch
def test_torchrun_passes_the_signal_on(image_folder, tmp_path):
    output = tmp_path / "run"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", f"--master_port={free_port()}"]
    options = [ELSEWHERE, "optim.max_iter=10000", "train.save_frequency=0", "train.num_workers=1"]
    process = subprocess.Popen(
        [*command, "dinov2/train/train.py", *arguments(image_folder, output, *options)],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: (output / "training_metrics.json").exists(), 120)
        processes = children_of(process.pid)
        process.terminate()
        assert process.wait(60) == 1  # torchrun's own status, whatever its processes say
        wait_until(lambda: not any(map(is_running, processes)), 10)
    finally:
        for number in [process.pid, *children_of(process.pid)]:
            end(number)
    log = (output / "logs" / "log.txt").read_text()
    assert "asked to stop by SIGTERM: saved after" in log
    assert Checkpointer(output / "checkpoints").load_newest() is not None
