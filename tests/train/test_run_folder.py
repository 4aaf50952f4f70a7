"""One job at a time in a run's folder."""

import errno
import os
import signal
import time
from multiprocessing import get_context

import pytest
from forks import children_of
from ranks import run_ranks

from dinov2.errors import UserError
from dinov2.train import run_folder
from dinov2.train.run_folder import LOCK, locked, set_aside


def hold(folder, ready, fork: bool) -> None:
    with locked(folder):
        if fork and os.fork() == 0:
            time.sleep(60)  # as a loader's worker that has not noticed yet
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """A process that holds the lock and has a child."""
    context = get_context("fork")
    ready = context.Event()
    process = context.Process(target=hold, args=(tmp_path, ready, True))
    process.start()
    assert ready.wait(30)
    children = children_of(process.pid)
    yield process
    for number in (process.pid, *children):
        try:
            os.kill(number, signal.SIGKILL)
        except ProcessLookupError:
            continue
    process.join()


def test_a_second_job_is_refused_and_told_who_is_there(holder, tmp_path):
    with pytest.raises(UserError, match=f"process {holder.pid} on {os.uname().nodename}"), locked(tmp_path):
        pass
    holder.kill()
    holder.join()
    with locked(tmp_path):  # the child of the killed process still runs
        assert f"process {os.getpid()} " in (tmp_path / LOCK).read_text()
    with locked(tmp_path):
        pass


def test_a_job_on_another_machine_is_waited_for(holder, tmp_path, monkeypatch):
    (tmp_path / LOCK).write_text("process 7 on elsewhere\n")
    pauses = []

    def sleep(seconds):
        pauses.append(seconds)
        if len(pauses) == 3:
            holder.kill()
            holder.join()

    monkeypatch.setattr(run_folder.time, "sleep", sleep)
    with locked(tmp_path):
        assert len(pauses) == 3


def test_but_not_for_ever(holder, tmp_path):
    (tmp_path / LOCK).write_text("process 7 on elsewhere\n")
    with pytest.raises(UserError, match="process 7 on elsewhere"), locked(tmp_path, patience=0):
        pass


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, caplog):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(run_folder.fcntl, "lockf", lockf)
    with locked(tmp_path):
        assert "no lock on" in caplog.text


def refused_on_every_rank(folder) -> bool:
    with pytest.raises(UserError, match="belongs to a run that goes on"), locked(folder):
        pass
    return True


def test_all_ranks_are_refused(holder, tmp_path):
    assert run_ranks(refused_on_every_rank, 2, tmp_path) == [True, True]


def test_starting_over_moves_what_is_there(tmp_path):
    set_aside(tmp_path)
    assert list(tmp_path.iterdir()) == []
    for number in (1, 2):
        (tmp_path / "checkpoints").mkdir()
        (tmp_path / "training_metrics.json").write_text(str(number))
        set_aside(tmp_path)
        assert (tmp_path / f"before-{number}" / "training_metrics.json").read_text() == str(number)
        assert (tmp_path / f"before-{number}" / "checkpoints").is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"before-1", "before-2"}
