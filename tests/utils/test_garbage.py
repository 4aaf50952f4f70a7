"""Garbage is collected at chosen steps and at no other time."""

import gc
import weakref

import pytest

from dinov2.utils.garbage import SteadyGarbageCollection


class Node:
    """Something that can be part of a cycle."""


def cycle() -> weakref.ref:
    node = Node()
    node.itself = node
    return weakref.ref(node)


def test_cycles_wait_for_their_step():
    with SteadyGarbageCollection(every=3) as garbage:
        assert not gc.isenabled()
        lost = cycle()
        for step in range(1, 4):
            assert lost() is not None, step
            [Node() for _ in range(10_000)]  # more than enough for the automatic collector
            garbage.step()
        assert lost() is None
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


@pytest.mark.parametrize("enabled", [True, False])
def test_the_collector_is_left_as_it_was(enabled):
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        with pytest.raises(KeyError), SteadyGarbageCollection():
            raise KeyError
        assert gc.isenabled() == enabled
    finally:
        (gc.enable if before else gc.disable)()
