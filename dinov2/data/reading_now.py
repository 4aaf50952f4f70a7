"""What each process is reading at the moment, visible to the one that waits for it.

A data set wraps its reads: `with reading(place): ...`. The text goes to the process's slot of a board in shared
memory, so that a loader's worker that is stopped, or stuck in a read, still shows what it is stuck at.
"""

import os
import struct
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import RawArray
from typing import NamedTuple

_SLOT = 512  # bytes
_HEADER = struct.Struct("=qdH")  # process, begin of the read (monotonic seconds, 0: none), bytes of UTF-8 that follow


class Reading(NamedTuple):
    """A read that goes on."""

    process: int
    seconds: float  # since it began
    description: str

    def __str__(self) -> str:
        return f"process {self.process} has been reading {self.description} for {self.seconds:.1f} s"


class ReadingBoard:
    """Slots in shared memory, one for each worker of a loader."""

    def __init__(self, num_slots: int) -> None:
        self._memory = RawArray("B", max(num_slots, 1) * _SLOT)
        _boards.add(self)

    def occupy(self, slot: int) -> None:
        """Make a slot the one that this process writes to."""
        global _own
        _own = memoryview(self._memory).cast("B")[slot * _SLOT : (slot + 1) * _SLOT]

    def readings(self) -> list[Reading]:
        """The reads that go on."""
        memory = bytes(self._memory)
        slots = (memory[start : start + _SLOT] for start in range(0, len(memory), _SLOT))
        return [reading for reading in map(_decode, slots) if reading]


_boards: "weakref.WeakSet[ReadingBoard]" = weakref.WeakSet()
_own = memoryview(bytearray(_SLOT))  # of a process that is no loader's worker


@contextmanager
def reading(description: object) -> Iterator[None]:
    """Show what is read inside the block. Costs about 3 microseconds."""
    text = str(description).encode("utf-8", "replace")[: _SLOT - _HEADER.size]
    _own[_HEADER.size : _HEADER.size + len(text)] = text
    _HEADER.pack_into(_own, 0, os.getpid(), time.monotonic(), len(text))
    try:
        yield
    finally:
        _HEADER.pack_into(_own, 0, os.getpid(), 0.0, 0)


def all_readings() -> list[Reading]:
    """The reads that go on in this process and in the workers of its loaders."""
    own = _decode(bytes(_own))
    return [*([own] if own else []), *(reading for board in list(_boards) for reading in board.readings())]


def _decode(slot: bytes) -> Reading | None:
    process, begin, length = _HEADER.unpack_from(slot)
    text = slot[_HEADER.size : _HEADER.size + length].decode("utf-8", "replace")
    return Reading(process, time.monotonic() - begin, text) if begin else None
