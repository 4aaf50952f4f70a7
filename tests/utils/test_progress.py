"""Progress in log files and on terminals."""

import io
import logging
import sys
from types import SimpleNamespace

import pytest

from dinov2.utils import progress
from dinov2.utils.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock.now)
    return clock


def run(clock, caplog, *, steps, seconds, **options):
    """Lines of the log of so many equal steps that take so long together."""
    caplog.set_level(logging.INFO)
    with Progress("features of train", 10 * steps, **options) as work:
        for _ in range(steps):
            clock.now += seconds / steps
            work.add(10)
    return caplog.messages


def test_long_work_says_how_much_how_fast_and_how_long(clock, caplog):
    lines = run(clock, caplog, steps=100, seconds=100.0)
    assert lines == [
        "features of train: 100 of 1,000 tiles, 10 tiles/s, 0:01:30 left",
        "features of train: 400 of 1,000 tiles, 10 tiles/s, 0:01:00 left",
        "features of train: 700 of 1,000 tiles, 10 tiles/s, 0:00:30 left",
        "features of train: 1,000 tiles in 0:01:40, 10 tiles/s",
    ]


@pytest.mark.parametrize(("seconds", "quiet", "count"), [(5.0, False, 1), (5.0, True, 0), (50.0, True, 3)])
def test_short_work_says_its_rate_or_nothing(clock, caplog, seconds, quiet, count):
    assert len(run(clock, caplog, steps=100, seconds=seconds, quiet=quiet)) == count


def test_it_never_counts_more_than_there_is(clock, caplog):
    caplog.set_level(logging.INFO)
    with Progress("k-NN", 10) as work:
        for _ in range(4):
            clock.now += 1.0
            work.add(3.5)
    assert caplog.messages == ["k-NN: 10 tiles in 0:00:04, 2.5 tiles/s"]


def test_work_that_fails_does_not_say_that_it_is_done(clock, caplog):
    caplog.set_level(logging.INFO)
    with pytest.raises(ValueError, match="broken"), Progress("features", 10):
        raise ValueError("broken")
    assert caplog.messages == []


def test_a_terminal_has_a_bar_and_the_last_line(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(sys, "stderr", terminal)
    with Progress("features of val", 4) as work:
        work.add(2)
        work.add(2)
    assert "features of val" in terminal.getvalue()
    assert len(caplog.messages) == 1


def test_other_ranks_are_silent(monkeypatch, clock, caplog):
    monkeypatch.setattr(progress, "is_main_process", lambda: False)
    assert run(clock, caplog, steps=10, seconds=100.0) == []
