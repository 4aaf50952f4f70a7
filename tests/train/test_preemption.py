"""Signals to stop: when they are heard, who hears of them, and what was there before."""

import os
import signal
import threading
import time

import pytest
from ranks import run_ranks

from dinov2.errors import ExitCode
from dinov2.train.preemption import Interrupted, StopRequested, StopSignals
from dinov2.utils.signals import STOP_SIGNALS, signals_held


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", STOP_SIGNALS)
def test_a_signal_only_sets_a_flag(number):
    with StopSignals() as signals:
        assert not signals.requested
        assert not signals.agreed()
        send(number)
        assert signals.requested
        assert signals.agreed()
        assert signals.exchange() == {number}
        with pytest.raises(StopRequested):
            signals.check()


def test_handlers_are_what_they_were():
    def own(number, frame):
        heard.append(number)

    heard: list[int] = []
    before = {number: signal.signal(number, own) for number in STOP_SIGNALS}
    try:
        with StopSignals():
            send(signal.SIGTERM)
            send(signal.SIGINT)  # puts another handler into its place for the next
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert heard == [signal.SIGTERM, signal.SIGINT]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_a_second_ctrl_c_is_not_for_us():
    with StopSignals() as signals:
        send(signal.SIGINT)
        assert signals.requested
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL
    assert signal.getsignal(signal.SIGINT) != signal.SIG_DFL


def test_outside_the_main_thread_nothing_is_installed():
    handlers = []

    def elsewhere():
        with StopSignals() as signals:
            handlers.append(signal.getsignal(signal.SIGTERM))
            assert not signals.agreed()

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert handlers == [before]


def test_a_wait_ends_with_a_signal():
    def never():
        send(signal.SIGUSR1)
        time.sleep(20)
        return 8

    with StopSignals() as signals:
        assert signals.wait_for(lambda: 7) == 7
        assert signals.wait_for(never) is None
        assert signals.wait_for(never) is None  # is not even begun
        send(signal.SIGUSR2)  # nobody waits: only a flag
        assert signals.exchange() == {signal.SIGUSR1, signal.SIGUSR2}


def test_errors_of_a_wait_get_out():
    def fail():
        raise OSError("disk")

    with StopSignals() as signals:
        with pytest.raises(OSError, match="disk"):
            signals.wait_for(fail)
        send(signal.SIGTERM)  # the wait is over
        assert signals.requested


def test_held_signals_arrive_afterwards():
    with StopSignals() as signals:
        with signals_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)  # pytest may have other threads
            assert not signals.requested
        assert signals.requested


def test_the_exit_status_says_start_me_again():
    interrupted = Interrupted(frozenset({signal.SIGTERM}))
    assert interrupted.code == ExitCode.INTERRUPTED == 75
    assert isinstance(interrupted, SystemExit)


def hear_on_one_rank(ranks: list[int]) -> list[tuple[bool, set[int]]]:
    from dinov2.distributed import get_global_rank

    seen = []
    with StopSignals() as signals:
        for number in range(3):
            if number == 1 and get_global_rank() in ranks:
                send(signal.SIGTERM if get_global_rank() == 0 else signal.SIGUSR2)
            seen.append((signals.agreed(), {int(signal) for signal in signals.exchange()}))
    return seen


@pytest.mark.parametrize(
    ("ranks", "signals"),
    [([0], {signal.SIGTERM}), ([1], {signal.SIGUSR2}), ([0, 1], {signal.SIGTERM, signal.SIGUSR2})],
)
def test_all_ranks_hear_of_it_at_the_same_place(ranks, signals):
    expected = [(False, set()), (True, signals), (True, signals)]
    assert run_ranks(hear_on_one_rank, 2, ranks) == [expected, expected]
