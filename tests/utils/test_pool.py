"""Work in processes: results in order, errors as they are, and nobody left behind."""

import os
import signal
from multiprocessing import active_children
from pathlib import Path

import pytest
from forks import end, exit_codes, forked, is_running, wait_until
from pool_work import die, double, fail_at_seven, wait

from dinov2.errors import UserError
from dinov2.utils.cli import run_command
from dinov2.utils.pool import LostWorkerError, in_order


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_results_come_in_order(workers: int) -> None:
    assert list(in_order(double, range(100), workers=workers)) == [(i, 2 * i) for i in range(100)]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_of_the_work_is_raised_here(workers: int) -> None:
    with pytest.raises(UserError, match="seven"):
        list(in_order(fail_at_seven, range(50), workers=workers))
    assert active_children() == []


def test_a_worker_that_is_killed_is_an_error() -> None:
    with pytest.raises(LostWorkerError):
        list(in_order(die, range(50), workers=2))


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_workers_go_with_the_command(number: signal.Signals, tmp_path: Path) -> None:
    files = [str(tmp_path / name) for name in "ab"]

    def work(rank: int) -> None:
        run_command(lambda: list(in_order(wait, files, workers=2)) and None)

    with forked(work, logs=tmp_path / "logs") as [process]:
        wait_until(lambda: all(Path(file).exists() and Path(file).read_text() for file in files))
        workers = [int(Path(file).read_text()) for file in files]
        try:
            os.kill(process.pid, number)
            assert exit_codes([process], 30) == [-number]
            wait_until(lambda: not any(map(is_running, workers)))
        finally:
            for worker in workers:
                end(worker)
    said = (tmp_path / "logs" / "rank0.txt").read_text()
    assert said == ("" if number == signal.SIGKILL else f"stopped by {number.name}\n")
