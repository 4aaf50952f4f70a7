"""Stopping on request without losing a step.

SLURM, torchrun and people ask a job to stop by a signal. A signal here only sets a flag. All ranks exchange their
flags before every step and between the batches of an evaluation, and so leave at the same place; a signal that
reaches one rank stops all. The training then saves its state and ends with the status that says "start me again".
"""

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import TypeVar

import torch

from dinov2.distributed import all_reduce_max
from dinov2.errors import ExitCode
from dinov2.utils.signals import STOP_SIGNALS

T = TypeVar("T")


class StopRequested(BaseException):
    """Some rank was asked to stop; raised on all ranks at the same place, where they check for it together.

    Not an `Exception`: nobody on the way up who handles errors may take it for one.
    """


class Interrupted(SystemExit):
    """The run was asked to stop and its state is saved; ends the process with the status for "start me again".

    Attributes:
        signals: what the ranks were asked to stop by.
    """

    def __init__(self, signals: frozenset[signal.Signals]) -> None:
        super().__init__(int(ExitCode.INTERRUPTED))
        self.signals = signals


class _SignalArrived(BaseException):
    """Ends a wait; never leaves `StopSignals.wait_for`."""


class StopSignals:
    """Inside the block signals set a flag; outside it they do what they did before.

    In a thread other than the main one, where Python cannot receive signals, there is nothing to install.
    """

    def __init__(self) -> None:
        self._received: set[signal.Signals] = set()
        self._previous: dict[signal.Signals, object] = {}
        self._waiting = False
        self._agreed = False

    def __enter__(self) -> "StopSignals":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._receive) for number in STOP_SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._previous = {}

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received.add(signal.Signals(number))
        if number == signal.SIGINT:
            # Who presses Ctrl-C twice does not want to wait for a checkpoint.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        if self._waiting:
            self._waiting = False
            raise _SignalArrived

    @property
    def requested(self) -> bool:
        """Whether this rank was asked to stop."""
        return bool(self._received)

    def exchange(self) -> frozenset[signal.Signals]:
        """The signals that any rank has received so far; all ranks call it together.

        The reduction runs between CPUs, also where gradients travel between GPUs, so no GPU is waited for.
        """
        flags = torch.tensor([number in self._received for number in STOP_SIGNALS], dtype=torch.int32)
        flags = all_reduce_max(flags)
        return frozenset(number for number, received in zip(STOP_SIGNALS, flags.tolist()) if received)

    def agreed(self) -> bool:
        """Whether any rank was asked to stop; all ranks call it together and get the same answer."""
        self._agreed = self._agreed or bool(self.exchange())
        return self._agreed

    def check(self) -> None:
        """Leave the work at hand if any rank was asked to stop; all ranks call it together.

        Raises:
            StopRequested: on all ranks or on none.
        """
        if self.agreed():
            raise StopRequested

    def wait_for(self, produce: Callable[[], T]) -> T | None:
        """What `produce` returns, or None as soon as a signal arrives.

        The wait is broken off by an exception out of the signal's handler: what `produce` works on may be left in
        the middle and must not be used again.
        """
        try:
            try:
                self._waiting = True
                return None if self.requested else produce()
            finally:
                self._waiting = False
        except _SignalArrived:
            return None
