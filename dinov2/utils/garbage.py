"""Python's garbage collection at the same step on all ranks.

Left alone, the collector runs whenever a process has made enough objects. One rank then pauses for up to some
hundred milliseconds while all others wait for it in a collective, and with many ranks some rank pauses in nearly every
step. Objects without cycles are freed as always; only the search for cycles waits.
"""

import gc
from types import TracebackType

COLLECT_EVERY = 50  # steps


class SteadyGarbageCollection:
    """Inside the block cycles are searched for every so many steps and at no other time."""

    def __init__(self, every: int = COLLECT_EVERY) -> None:
        self.every = every
        self._steps = 0
        self._was_enabled = False

    def __enter__(self) -> "SteadyGarbageCollection":
        self._was_enabled = gc.isenabled()
        gc.disable()
        gc.collect()
        # What lives now (modules, model, data set) lives on: it need not be searched again, and in forked loader
        # workers its pages stay shared.
        gc.freeze()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        gc.unfreeze()
        if self._was_enabled:
            gc.enable()

    def step(self) -> None:
        """Count a step, and collect if it is time; every rank calls it after every step."""
        self._steps += 1
        if self._steps % self.every == 0:
            gc.collect()
