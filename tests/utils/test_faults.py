"""Faults on purpose: at the right point, at the right time, and at no cost otherwise."""

import errno
import os
import re
import signal
import time
from pathlib import Path

import pytest

import dinov2
from dinov2.errors import UserError
from dinov2.utils import faults
from dinov2.utils.faults import FAULT_POINTS, VARIABLE, fault_point, read_plan


@pytest.fixture
def plan(monkeypatch):
    """Sets a plan for the test."""

    def use(text: str) -> None:
        monkeypatch.setenv(VARIABLE, text)
        read_plan()

    yield use
    monkeypatch.undo()
    read_plan()


def test_the_list_of_points_is_complete():
    package = Path(dinov2.__file__).parent
    calls = [
        name
        for path in package.rglob("*.py")
        if path.name != "faults.py"
        for name in re.findall(r'\bfault_point\(\s*"([^"]+)"', path.read_text(encoding="utf-8"))
    ]
    assert sorted(calls) == sorted(FAULT_POINTS)
    assert len(FAULT_POINTS) >= 12


def test_nothing_happens_without_a_plan(plan):
    plan("")
    assert faults._plan == {}
    for name in FAULT_POINTS:
        fault_point(name)


def test_the_nth_time_only_or_from_then_on(plan):
    plan("save.begin=ENOSPC@2, save.before_rename=EIO@2+")
    outcomes = []
    for name in ("save.begin", "save.before_rename"):
        for _ in range(4):
            try:
                fault_point(name)
                outcomes.append(0)
            except OSError as error:
                outcomes.append(error.errno)
    assert outcomes == [0, errno.ENOSPC, 0, 0, 0, errno.EIO, errno.EIO, errno.EIO]


def test_delay(plan):
    plan("save.begin=delay:0.2")
    started = time.monotonic()
    fault_point("save.begin")
    assert time.monotonic() - started > 0.19


@pytest.mark.parametrize(("action", "number"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_kill_and_stop(plan, action, number):
    plan(f"save.begin={action}")
    child = os.fork()
    if child == 0:
        fault_point("save.begin")
        os._exit(0)
    _, status = os.waitpid(child, os.WUNTRACED)
    assert (os.WTERMSIG(status) if action == "kill" else os.WSTOPSIG(status)) == number
    if action == "stop":
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("save.begin", "not understood"),
        ("save.begun=kill", "did you mean save.begin"),
        ("save.begin=ENOSPACE", "did you mean ENOSPC"),
        ("save.begin=kill@-1", "not understood"),
    ],
)
def test_a_plan_with_a_mistake_is_refused(plan, text, message):
    with pytest.raises(UserError, match=message):
        plan(text)
