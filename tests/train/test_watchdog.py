"""A hang is noticed, explained and ended; a run that does not hang is left alone."""

import ctypes
import faulthandler
import logging
import os
import re
import signal
import threading
import time
from types import SimpleNamespace

import pytest
import torch
from forks import exit_codes, forked

from dinov2 import distributed
from dinov2.data.reading_now import reading
from dinov2.errors import ExitCode
from dinov2.train import watchdog as watchdog_module
from dinov2.train.watchdog import Phase, TimeLimits, Watchdog

SHORT = TimeLimits(step=0.4, data=0.5, evaluation=1.0, save=1.0)


@pytest.fixture(autouse=True)
def quick_report(monkeypatch):
    monkeypatch.setattr(watchdog_module, "REPORTING", 0.2)


def hang(rank: int, phase: Phase) -> None:
    """Take a few quick steps and then never finish a phase."""
    with Watchdog(SHORT) as watchdog:
        for _ in range(3):
            with watchdog.phase(Phase.DATA), reading("a tile that is read in time"):
                pass
            with watchdog.phase(Phase.STEP):
                pass
        with watchdog.phase(phase), reading('"slide_07/x1024.jpg" of tiles.tar'):
            time.sleep(60)


@pytest.mark.parametrize(
    ("phase", "setting"),
    [
        (Phase.DATA, "train.data_timeout"),
        (Phase.STEP, "train.step_timeout"),
        (Phase.EVALUATION, "train.evaluation_timeout"),
        (Phase.SAVE, "train.save_timeout"),
    ],
)
def test_a_phase_that_never_ends(phase, setting, tmp_path):
    with forked(hang, phase, logs=tmp_path) as processes:
        assert exit_codes(processes, 20) == [ExitCode.HUNG]
    log = (tmp_path / "rank0.txt").read_text()
    assert f"this process hangs: {phase.value} has taken" in log
    assert setting in log
    assert 'has been reading "slide_07/x1024.jpg" of tiles.tar for' in log
    assert "no collective yet" in log
    assert "in hang" in log  # the stack of the main thread
    assert "in time" not in log


def take_a_thousand_steps(rank: int, limits: TimeLimits) -> None:
    """Steps, saves and evaluations that together take longer than any limit, none of them alone."""
    with Watchdog(limits) as watchdog:
        for step in range(1000):
            with watchdog.phase(Phase.DATA):
                pass
            with watchdog.phase(Phase.AGREEMENT):
                pass
            with watchdog.phase(Phase.STEP):
                time.sleep(0.001)
                if step % 100 == 0:
                    with watchdog.phase(Phase.EVALUATION):
                        for _ in range(4):
                            time.sleep(0.05)
                            watchdog.beat()
                    with watchdog.phase(Phase.SAVE):
                        time.sleep(0.05)


@pytest.mark.thorough  # 4 s
def test_no_false_alarm_in_a_thousand_steps(tmp_path):
    with forked(take_a_thousand_steps, TimeLimits(2.0, 2.0, 2.0, 2.0), logs=tmp_path) as processes:
        assert exit_codes(processes, 60) == [0]
    assert (tmp_path / "rank0.txt").read_text() == ""


def test_what_happens_within_a_step_does_not_count_as_its_time(monkeypatch):
    clock = iter(range(1000))  # a second passes at every look
    monkeypatch.setattr(watchdog_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
    watchdog = Watchdog(TimeLimits())
    with watchdog.phase(Phase.STEP):
        pass
    with watchdog.phase(Phase.STEP):
        for _ in range(10):
            with watchdog.phase(Phase.SAVE):
                watchdog.beat()
    assert list(watchdog._steps) == [1.0, 11.0]


def test_limits_of_steps(monkeypatch):
    watchdog = Watchdog(TimeLimits(step=60.0, data=120.0, evaluation=0.0))
    assert watchdog.limit(Phase.STEP) == 300.0
    watchdog._steps.extend([1.0, 2.0, 3.0])
    assert watchdog.limit(Phase.STEP) == 60.0
    watchdog._steps.extend([20.0, 20.0, 20.0, 20.0])
    assert watchdog.limit(Phase.STEP) == 100.0
    assert watchdog.limit(Phase.AGREEMENT) > watchdog.limit(Phase.DATA) == 120.0
    assert watchdog.limit(Phase.EVALUATION) == float("inf")
    unlimited = Watchdog(TimeLimits(0.0, 0.0, 0.0, 0.0))
    assert {unlimited.limit(phase) for phase in Phase} == {float("inf")}


def test_collectives_wait_a_little_longer_than_the_watchdog(monkeypatch):
    timeouts = []
    monkeypatch.setattr(watchdog_module, "set_timeout", lambda timeout: timeouts.append(timeout.total_seconds()))
    with Watchdog(TimeLimits(step=60.0, data=0.0, save=1000.0)) as watchdog:
        with watchdog.phase(Phase.STEP):
            pass
        with watchdog.phase(Phase.STEP), watchdog.phase(Phase.SAVE):
            pass
        with watchdog.phase(Phase.DATA):
            pass
    assert timeouts == [330.0, 90.0, 1030.0, 90.0, 30 * 86400.0]


def test_a_process_that_was_stopped_as_a_whole_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog_module, "SUSPENDED", 0.3)

    def stopped(rank: int) -> None:
        with Watchdog(SHORT) as watchdog, watchdog.phase(Phase.SAVE):
            for _ in range(10):
                time.sleep(0.05)

    with forked(stopped, logs=tmp_path) as processes:
        time.sleep(0.2)
        os.kill(processes[0].pid, signal.SIGSTOP)
        time.sleep(2.0)
        os.kill(processes[0].pid, signal.SIGCONT)
        assert exit_codes(processes, 20) == [0]


def test_code_that_never_gives_up_the_interpreter(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog_module, "LOCKED", 1.0)

    def locked(rank: int) -> None:
        with Watchdog(SHORT) as watchdog, watchdog.phase(Phase.DATA):
            time.sleep(0.2)
            ctypes.PyDLL(None).sleep(60)  # unlike CDLL, this keeps the lock

    with forked(locked, logs=tmp_path) as processes:
        assert exit_codes(processes, 20) == [ExitCode.FAILED]
    assert "in locked" in (tmp_path / "rank0.txt").read_text()


def test_a_report_that_hangs_itself_is_cut_short(tmp_path, monkeypatch):
    monkeypatch.setattr(watchdog_module, "LAST_WORDS", 1)
    monkeypatch.setattr(logging.getLogger("dinov2"), "critical", lambda text: time.sleep(60))
    with forked(hang, Phase.DATA, logs=tmp_path) as processes:
        assert exit_codes(processes, 20) == [-signal.SIGALRM]
    assert "this process hangs" in (tmp_path / "rank0.txt").read_text()


def test_nothing_stays_behind():
    before = threading.active_count()
    with Watchdog(TimeLimits()):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before
    assert not faulthandler.unregister(signal.SIGQUIT)


def test_stacks_on_request(tmp_path):
    def asked(rank: int) -> None:
        with Watchdog(TimeLimits()):
            os.kill(os.getpid(), signal.SIGQUIT)

    with forked(asked, logs=tmp_path) as processes:
        assert exit_codes(processes, 20) == [0]
    assert "in asked" in (tmp_path / "rank0.txt").read_text()


def sleep_instead_of_reducing(rank: int) -> None:
    """Two ranks, of which the second does not come to the second collective."""
    distributed.enable()
    distributed.all_reduce_sum(torch.zeros(3, 2))
    with Watchdog(SHORT) as watchdog, watchdog.phase(Phase.DATA if rank == 0 else Phase.SAVE):
        if rank == 1:
            time.sleep(60)
        distributed.all_reduce_sum(torch.zeros(4))


def test_the_last_collective_is_named(tmp_path):
    with forked(sleep_instead_of_reducing, ranks=2, logs=tmp_path) as processes:
        assert exit_codes(processes, 30) == [ExitCode.HUNG] * 2
    waiting, sleeping = ((tmp_path / f"rank{rank}.txt").read_text() for rank in range(2))
    assert re.search(r"collective number 3, all_reduce_sum of \(4,\) float32, begun .* s ago, not finished", waiting)
    assert re.search(r"collective number 2, all_reduce_sum of \(3, 2\) float32, begun .* s ago, finished", sleeping)
