"""Children end with their parent, however they were started, and are deaf to everyone else."""

import multiprocessing
import os
import signal
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import forkserver
from pathlib import Path

import pytest
from forks import end, is_running, wait_until

from dinov2.utils.child_processes import follow_parent
from dinov2.utils.signals import STOP_SIGNALS

METHODS = ("fork", "spawn", "forkserver")


def use_a_pool(method: str, path: Path) -> None:
    """A command whose pool is at work, and by then deaf to signals of others."""
    forkserver._forkserver.__init__()  # a server that the tests have started is none of this forked process
    with ProcessPoolExecutor(1, multiprocessing.get_context(method), initializer=follow_parent) as pool:
        report(path, pool.submit(os.getpid).result())
        pool.submit(time.sleep, 120).result()


def report(path: Path, process: int) -> None:
    path.with_suffix(".part").write_text(str(process))
    path.with_suffix(".part").rename(path)


@pytest.mark.parametrize("method", METHODS)
def test_a_pool_that_goes_with_a_killed_command(method, tmp_path):
    command = multiprocessing.get_context("fork").Process(target=use_a_pool, args=(method, tmp_path / "worker"))
    command.start()
    try:
        wait_until((tmp_path / "worker").exists)
        worker = int((tmp_path / "worker").read_text())
        for number in STOP_SIGNALS:
            os.kill(worker, number)  # from a process that is not its parent
        assert is_running(worker)
        command.kill()
        wait_until(lambda: not is_running(worker))
    finally:
        end(command.pid)
        command.join()


@pytest.mark.parametrize("method", METHODS)
def test_a_child_that_its_parent_ends(method):
    with ProcessPoolExecutor(1, multiprocessing.get_context(method), initializer=follow_parent) as pool:
        worker = pool.submit(os.getpid).result()
        assert pool.submit(os.getpid).result() == worker != os.getpid()
        os.kill(worker, signal.SIGTERM)
        wait_until(lambda: not is_running(worker))


def test_a_stopped_sibling_keeps_nobody(tmp_path):
    """The one that was forked later holds the pipe that tells the first of its parent's end."""

    def work(name: str) -> None:
        follow_parent()
        report(tmp_path / name, os.getpid())
        time.sleep(120)

    def start_two() -> None:
        for name in ("first", "second"):
            multiprocessing.get_context("fork").Process(target=work, args=(name,)).start()
        time.sleep(120)

    command = multiprocessing.get_context("fork").Process(target=start_two)
    command.start()
    try:
        wait_until(lambda: (tmp_path / "first").exists() and (tmp_path / "second").exists())
        first, second = (int((tmp_path / name).read_text()) for name in ("first", "second"))
        os.kill(second, signal.SIGSTOP)
        command.kill()
        wait_until(lambda: not is_running(first))
    finally:
        for process in (command.pid, first, second):
            end(process)
        command.join()


def test_a_process_without_a_parent_to_follow():
    with pytest.raises(RuntimeError, match="not started by multiprocessing"):
        follow_parent()
