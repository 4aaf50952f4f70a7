"""Ranks and loader workers that die, stop or fail: the others say so and leave."""

import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from forks import children_of, exit_codes, forked, is_running, read_without_end, run_training, wait_until
from runs import arguments

from dinov2.data.training_view import TrainingView
from dinov2.distributed import whereabouts as whereabouts_module
from dinov2.errors import ExitCode
from dinov2.train import hooks as hooks_module
from dinov2.train import train as train_module
from dinov2.train import watchdog as watchdog_module
from dinov2.train.checkpoint import Checkpointer
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.tuning import Tuner
from dinov2.train.watchdog import process_state

LIMIT = 3.0  # seconds, of the phase in which something hangs; all others may take as long as a busy machine lets them
PATIENCE = 120.0  # seconds for all of a test

# Where a fault happens: a function that is called there, and which of its calls it is.
PLACES: dict[str, tuple[object, str, int]] = {
    "opening": (train_module, "plan_training", 1),
    "building": (train_module, "build_model", 1),
    "resuming": (train_module, "restore", 1),
    "data wait": (TrainingView, "__getitem__", 6),
    "forward": (SSLMetaArch, "forward_backward", 3),
    "backward": (torch.Tensor, "backward", 3),
    "save": (Checkpointer, "save", 1),
    "evaluation": (Tuner, "__call__", 2),
    "export": (hooks_module, "export_networks", 1),
}


@pytest.fixture(autouse=True)
def quick_report(monkeypatch):
    monkeypatch.setattr(watchdog_module, "REPORTING", 1.0)


def training(images: Path, output: Path, *overrides: str) -> list[str]:
    """Arguments of an endless training that exports and saves every other step."""
    return arguments(
        images,
        output,
        *("optim.max_iter=10000", "evaluation.eval_period_iterations=2", "train.batch_size_per_gpu=2"),
        *(f"train.{phase}_timeout=120" for phase in ("data", "step", "evaluation", "save")),
        *overrides,
    )


def evaluations(images: Path) -> list[str]:
    """Settings of an evaluation every other step."""
    sets = [f'tune.{name}_dataset_path=ImageFolder:root="{images}"' for name in ("query", "test")]
    return [*sets, "tune.tile_size=28", "tune.crop_size=28", "tune.knn.nb_knn=[1]", "tune.tune_every_iterations=2"]


def fault_at(place: str, fault: Callable[[], None]) -> Callable[[int], None]:
    """What lets rank 1 suffer a fault inside a place."""
    owner, name, which = PLACES[place]
    original = getattr(owner, name)
    calls = []

    def faulty(*args, **kwargs):
        calls.append(None)
        if len(calls) == which:
            fault()
        return original(*args, **kwargs)

    def prepare(rank: int) -> None:
        if rank == 1:
            setattr(owner, name, faulty)

    return prepare


def be_killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def be_stopped() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def fail() -> None:
    raise RuntimeError("a fault of this test")


# How the two ranks end; None: not by itself.
KILLED = [ExitCode.LOST_RANK, -signal.SIGKILL]
FAILED = [ExitCode.LOST_RANK, ExitCode.FAILED]


@pytest.mark.parametrize(
    ("place", "fault", "codes"),
    [
        ("forward", be_killed, KILLED),
        ("save", be_killed, KILLED),
        ("opening", fail, FAILED),
        ("data wait", fail, FAILED),
        pytest.param("evaluation", fail, FAILED, marks=pytest.mark.thorough),
        # 25 s
        pytest.param("building", be_killed, KILLED, marks=pytest.mark.slow),
        pytest.param("evaluation", be_killed, KILLED, marks=pytest.mark.slow),
        pytest.param("backward", fail, FAILED, marks=pytest.mark.slow),
        pytest.param("export", fail, FAILED, marks=pytest.mark.slow),
    ],
)
def test_the_other_rank_leaves(place, fault, codes, image_folder, tmp_path):
    command = training(image_folder, tmp_path / "run", *(evaluations(image_folder) if place == "evaluation" else []))
    with forked(run_training, command, fault_at(place, fault), ranks=2, logs=tmp_path) as processes:
        assert exit_codes(processes, PATIENCE) == codes, (tmp_path / "rank0.txt").read_text()
    log = (tmp_path / "rank0.txt").read_text()
    assert "error: another process of this run has ended or does not answer" in log
    # By which a traceback of the main process begins; workers may complain of its end.
    assert "ForkProcess" not in log


@pytest.mark.parametrize(
    ("place", "setting"),
    [
        ("opening", "save"),
        ("backward", "step"),
        pytest.param("building", "save", marks=pytest.mark.thorough),
        pytest.param("resuming", "save", marks=pytest.mark.thorough),
        pytest.param("data wait", "data", marks=pytest.mark.thorough),
        # 25 s
        pytest.param("evaluation", "evaluation", marks=pytest.mark.slow),
        pytest.param("export", "save", marks=pytest.mark.slow),
    ],
)
def test_the_other_rank_names_the_one_that_is_stopped(place, setting, image_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog_module, "COLLECTIVE_MARGIN", 1.0)
    monkeypatch.setattr(watchdog_module, "SLOW_STEP", 2.0)
    monkeypatch.setattr(whereabouts_module, "EVERY", 0.2)
    monkeypatch.setattr(whereabouts_module, "SILENT", 1.5)
    monkeypatch.setattr(whereabouts_module, "FIRST_NOTICE", 1.0)
    command = training(image_folder, tmp_path / "run", *(evaluations(image_folder) if place == "evaluation" else []))
    limits = [f"train.{name}_timeout={LIMIT}" for name in {"step", setting}]  # the start has as long as the first step
    prepare = fault_at(place, be_stopped)
    with forked(run_training, [*command, *limits], prepare, ranks=2, logs=tmp_path) as processes:
        exit_codes(processes[:1], PATIENCE)
        codes = [process.exitcode for process in processes]
        assert codes == [ExitCode.HUNG, None], (tmp_path / "rank0.txt").read_text()
        stopped = processes[1].pid
    report = (tmp_path / "rank0.txt").read_text().split("this process hangs: ")[1]
    assert "collective number" in report
    assert re.search(rf"it waits for rank 1 \(process {stopped} on .*\), (not heard of for|opening|building)", report)
    assert "in main" in (tmp_path / "run" / "logs" / "log.txt").read_text()  # the stack of the main thread


def test_a_worker_that_is_killed(image_folder, tmp_path):
    options = ["train.num_workers=2"]
    with forked(run_training, training(image_folder, tmp_path / "run", *options), logs=tmp_path) as processes:
        wait_until(lambda: (tmp_path / "run" / "checkpoints" / "step-0000002").is_dir())
        workers = wait_until(lambda: children_of(processes[0].pid))
        os.kill(workers[0], signal.SIGKILL)
        assert exit_codes(processes, PATIENCE) == [ExitCode.FAILED]
        wait_until(lambda: not any(map(is_running, workers)))
    log = (tmp_path / "rank0.txt").read_text()
    assert "error: a process that reads tiles has ended by itself" in log
    assert "train.num_workers" in log
    assert "ForkProcess" not in log  # by which a traceback of the main process begins; workers may complain of its end


def test_a_worker_that_is_stopped(image_folder, tmp_path):
    options = ["train.num_workers=1", f"train.data_timeout={LIMIT}"]
    with forked(run_training, training(image_folder, tmp_path / "run", *options), logs=tmp_path) as processes:
        wait_until(lambda: (tmp_path / "run" / "checkpoints" / "step-0000002").is_dir())
        (worker,) = wait_until(lambda: children_of(processes[0].pid))
        os.kill(worker, signal.SIGSTOP)
        assert exit_codes(processes, PATIENCE) == [ExitCode.HUNG]
        wait_until(lambda: not is_running(worker))
    log = (tmp_path / "rank0.txt").read_text()
    assert "waiting for a batch has taken" in log
    assert f"loader worker {worker} is stopped by a signal" in log


def test_a_worker_that_never_finishes_a_read(image_folder, tmp_path):
    options = ["train.num_workers=1", f"train.data_timeout={LIMIT}"]
    command = training(image_folder, tmp_path / "run", *options)
    with forked(run_training, command, read_without_end(tmp_path / "fifo"), logs=tmp_path) as processes:
        assert exit_codes(processes, PATIENCE) == [ExitCode.HUNG]
        assert children_of(processes[0].pid) == []
    log = (tmp_path / "rank0.txt").read_text()
    assert re.search(rf"process \d+ has been reading {tmp_path}/fifo for \d", log)
    assert "in get_image_data" in (tmp_path / "run" / "logs" / "log.txt").read_text()  # the worker's stack


def test_workers_go_when_their_parent_is_gone(image_folder, tmp_path):
    command = training(image_folder, tmp_path / "run", "train.num_workers=2")
    with forked(run_training, command, read_without_end(tmp_path / "fifo"), logs=tmp_path) as processes:
        workers = wait_until(lambda: len(found := children_of(processes[0].pid)) == 2 and found)
        wait_until(lambda: [process_state(worker) for worker in workers] == ["sleeping"] * 2)
        processes[0].kill()
        wait_until(lambda: not any(map(is_running, workers)))


@pytest.mark.slow  # 60 s
def test_no_false_alarm_in_a_thousand_real_steps(image_folder, tmp_path):
    limits = [f"train.{phase}_timeout=5" for phase in ("data", "step", "evaluation", "save")]
    frequencies = ["train.save_frequency=50", "evaluation.eval_period_iterations=100", "tune.tune_every_iterations=100"]
    options = [*evaluations(image_folder), *limits, *frequencies, "optim.max_iter=1000", "train.num_workers=2"]
    command = training(image_folder, tmp_path / "run", *options)
    with forked(run_training, command, logs=tmp_path) as processes:
        assert exit_codes(processes, 500) == [ExitCode.DONE], (tmp_path / "rank0.txt").read_text()[-2000:]
    assert len((tmp_path / "run" / "results" / "tune.jsonl").read_text().splitlines()) == 11
