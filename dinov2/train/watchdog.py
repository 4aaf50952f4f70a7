"""A process that hangs says where, and ends.

A hang costs most when nobody notices: a stopped loader worker, a read from a dead file system, a rank that left a
collective. A daemon thread in each process compares how long the present phase has taken with a limit. Past it the
log gets the phase, the last collective, the reads that go on and the stacks of all threads, also of the loader's
workers; then the process ends, and with it the collectives that other ranks wait in.
"""

import faulthandler
import logging
import os
import signal
import statistics
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from multiprocessing import active_children
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from dinov2.data.reading_now import all_readings
from dinov2.distributed import describe_last_collective, ranks_waited_for, set_activity, set_timeout
from dinov2.errors import ExitCode
from dinov2.logging import log_descriptor

logger = logging.getLogger("dinov2")

SLOW_STEP = 5.0  # times the median of the last steps; also what the first step may take of the least limit
COLLECTIVE_MARGIN = 30.0  # seconds that collectives wait longer, so that the report here comes first
LONGEST_TIMEOUT = 30 * 86400.0  # seconds that collectives wait where nothing is limited
SUSPENDED = 5.0  # seconds that this thread must be late to tell that the process was stopped
LOCKED = 3600.0  # seconds without Python; longer than a scheduler suspends a job for
REPORTING = 5.0  # seconds for workers to write their stacks, and for other ranks to report before a launcher ends all
LAST_WORDS = 30  # seconds for all of the report


class Phase(Enum):
    """What a run does; the value is what the log calls it."""

    MEETING = "meeting the other processes"
    OPENING = "opening the data sets"
    BUILDING = "building the model and loading its weights"
    RESUMING = "looking for a checkpoint to go on from"
    DATA = "waiting for a batch"
    AGREEMENT = "waiting for the batches of other ranks"
    STEP = "a training step"
    EVALUATION = "an evaluation"
    SAVE = "saving"


_BEGINNING = (Phase.MEETING, Phase.OPENING, Phase.BUILDING, Phase.RESUMING)
_SETTINGS = {
    **dict.fromkeys(_BEGINNING, "train.save_timeout"),
    Phase.DATA: "train.data_timeout",
    Phase.AGREEMENT: f"train.data_timeout + {COLLECTIVE_MARGIN:.0f}",
    Phase.STEP: "train.step_timeout",
    Phase.EVALUATION: "train.evaluation_timeout",
    Phase.SAVE: "train.save_timeout",
}
_STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "waiting for a disk or a file server",
    "T": "stopped by a signal",
    "Z": "ended",
}


@dataclass(frozen=True)
class TimeLimits:
    """Seconds that a phase may take; 0: as long as it likes."""

    step: float = 60.0  # at least; 5 times the median step where that is longer, 5 times this for the first step
    data: float = 120.0  # a batch
    evaluation: float = 1800.0  # a batch of an evaluation, or its vote
    save: float = 1800.0  # a checkpoint or an export, and each part of the beginning

    @classmethod
    def from_config(cls, cfg: Any) -> "TimeLimits":
        """The `train.*_timeout` settings."""
        train = cfg.train
        return cls(train.step_timeout, train.data_timeout, train.evaluation_timeout, train.save_timeout)


class _Watched(NamedTuple):
    """A phase that goes on."""

    phase: Phase
    begun: float  # monotonic seconds
    limit: float


class Watchdog:
    """Inside the block a phase that takes longer than its limit ends the process with `ExitCode.HUNG`."""

    def __init__(self, limits: TimeLimits) -> None:
        self.limits = limits
        self._steps: deque[float] = deque(maxlen=50)  # seconds of the last steps
        self._current: _Watched | None = None
        self._timeout = 0.0  # seconds that collectives wait at present
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        self.show_stacks_on_request()
        self._thread.start()
        set_activity(self.describe)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._current = None
        self._ended.set()
        self._thread.join()
        faulthandler.unregister(signal.SIGQUIT)

    def show_stacks_on_request(self) -> None:
        """Let `kill -QUIT` show the stacks of a process that goes on, in its log if it has one by now."""
        faulthandler.register(signal.SIGQUIT, file=log_descriptor(), all_threads=True)

    def describe(self) -> str:
        """The present phase in words."""
        if (current := self._current) is None:
            return "between two phases"
        seconds = f"{time.monotonic() - current.begun:.0f} s"
        return ", ".join([f"{current.phase.value} for {seconds}", *map(str, all_readings()[:2])])

    @contextmanager
    def phase(self, phase: Phase) -> Iterator[None]:
        """Watch the block; the phase around it, if there is one, stands still meanwhile."""
        outer, begun = self._current, time.monotonic()
        self._watch_over(_Watched(phase, begun, self.limit(phase)))
        try:
            yield
        finally:
            ended = time.monotonic()
            if phase is Phase.STEP and self._current is not None:
                self._steps.append(ended - self._current.begun)
            self._watch_over(outer._replace(begun=outer.begun + ended - begun) if outer else None)

    def beat(self) -> None:
        """A sign of life: the present phase begins anew."""
        if self._current is not None:
            self._current = self._current._replace(begun=time.monotonic())

    def limit(self, phase: Phase) -> float:
        """Seconds that a phase may take; infinite where it is not limited."""
        if phase is Phase.STEP:
            return self._step_limit() if self.limits.step else float("inf")
        if phase is Phase.AGREEMENT:
            return self.limit(Phase.DATA) + COLLECTIVE_MARGIN
        if phase is Phase.MEETING:
            return self.limit(Phase.OPENING) + COLLECTIVE_MARGIN  # who waits for others gives up by itself
        if phase in _BEGINNING:
            return max(self.limit(Phase.SAVE), SLOW_STEP * self.limits.step or float("inf"))
        limits = {Phase.DATA: self.limits.data, Phase.EVALUATION: self.limits.evaluation, Phase.SAVE: self.limits.save}
        return limits[phase] or float("inf")

    def timeout(self, phase: Phase) -> timedelta:
        """The limit of a phase as others take it."""
        return timedelta(seconds=min(self.limit(phase), LONGEST_TIMEOUT))

    def _step_limit(self) -> float:
        if not self._steps:
            return SLOW_STEP * self.limits.step
        return max(self.limits.step, SLOW_STEP * statistics.median(self._steps))

    def _watch_over(self, current: _Watched | None) -> None:
        if current is not None:
            timeout = min(current.limit + COLLECTIVE_MARGIN, LONGEST_TIMEOUT)
            if timeout != self._timeout:
                set_timeout(timedelta(seconds=timeout))
                self._timeout = timeout
        self._current = current

    def _watch(self) -> None:
        """The thread: look at the present phase every now and then."""
        limited = [seconds for seconds in vars(self.limits).values() if seconds]
        pause = min([1.0, *(seconds / 20 for seconds in limited)])
        looked = resumed = time.monotonic()
        while not self._ended.wait(pause):
            now = time.monotonic()
            if now - looked > pause + SUSPENDED:
                resumed = now  # the process as a whole was stopped, which is no hang of its own
            looked = now
            if (current := self._current) is not None:
                self._look_at(current, now, resumed)
            # Where other code never gives up the interpreter's lock this thread does not run, but C code does.
            faulthandler.dump_traceback_later(LOCKED, exit=True, file=log_descriptor())
        faulthandler.cancel_dump_traceback_later()

    def _look_at(self, current: _Watched, now: float, resumed: float) -> None:
        if now - max(current.begun, resumed) > current.limit:
            self._end_process(current, now - current.begun)
        if current.phase in (Phase.DATA, Phase.EVALUATION):
            # The kernel may have told another thread that a loader worker died. Then the main thread, stuck in a
            # message that the worker did not finish, learns of it when something else disturbs its wait.
            signal.pthread_kill(threading.main_thread().ident, signal.SIGCHLD)  # type: ignore[arg-type]

    def _end_process(self, current: _Watched, seconds: float) -> None:
        """Report what is known and end the process."""
        signal.alarm(LAST_WORDS)  # the kernel ends a process whose report hangs as well
        setting = _SETTINGS[current.phase]
        text = "\n  ".join(
            [
                f"this process hangs: {current.phase.value} has taken {seconds:.1f} s, more than {current.limit:.1f} s "
                f"({setting}; raise it if this is only slow). Stacks of all threads follow in the log of this process",
                describe_last_collective(),
                *(f"it waits for {rank}" for rank in ranks_waited_for()),
                *map(str, all_readings()),
                *(f"loader worker {child.pid} is {process_state(child.pid)}" for child in active_children()),
            ]
        )
        os.write(2, f"error: {text}\n".encode())
        logger.critical(text)
        faulthandler.dump_traceback(file=log_descriptor(), all_threads=True)
        for child in active_children():
            if child.pid is not None:
                os.kill(child.pid, signal.SIGQUIT)  # a worker's own handler writes its stacks
        time.sleep(REPORTING)
        for child in active_children():
            child.kill()  # one that is stopped would stay
        os._exit(ExitCode.HUNG)


def process_state(process: int | None) -> str:
    """What the kernel says that a process does."""
    try:
        letter = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "in an unknown state"
    return _STATES.get(letter, f"in state {letter}")
