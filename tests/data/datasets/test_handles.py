"""No more open files than allowed, and none of another process."""

import os
import pickle

import pytest

from dinov2.data.datasets.handles import Handles


class Probe:
    """Notes whether it is open."""

    def __init__(self) -> None:
        self.is_open = True

    def close(self) -> None:
        self.is_open = False


def test_the_one_not_used_for_longest_is_closed():
    handles: Handles[Probe] = Handles(most=2)
    probes = {key: handles.get(key, Probe) for key in "ab"}
    assert handles.get("a", Probe) is probes["a"]
    handles.get("c", Probe)
    assert (probes["a"].is_open, probes["b"].is_open) == (True, False)
    assert handles.get("b", Probe) is not probes["b"]
    assert not probes["a"].is_open


def test_what_cannot_be_opened_is_not_kept():
    def fail() -> Probe:
        raise OSError("no")

    handles: Handles[Probe] = Handles()
    with pytest.raises(OSError, match="no"):
        handles.get("a", fail)
    assert handles.get("a", Probe).is_open


def test_pickled_without_handles():
    handles: Handles[Probe] = Handles()
    probe = handles.get("a", Probe)
    assert pickle.loads(pickle.dumps(handles)).get("a", Probe) is not probe
    assert handles.get("a", Probe) is probe


def test_a_child_closes_its_copies_and_opens_its_own():
    handles: Handles[Probe] = Handles()
    probe = handles.get("a", Probe)
    child = os.fork()
    if child == 0:
        good = handles.get("a", Probe) is not probe and not probe.is_open
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert handles.get("a", Probe) is probe
    assert probe.is_open
