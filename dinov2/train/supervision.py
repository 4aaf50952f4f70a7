"""What watches over a training loop: requests to stop, hangs, lost processes, pauses of the garbage collector."""

import time
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch.distributed as dist

from dinov2.errors import ExitCode, UserError
from dinov2.utils.garbage import SteadyGarbageCollection

from .preemption import StopSignals
from .watchdog import Phase, TimeLimits, Watchdog

T = TypeVar("T")
_END: Any = object()


class LostWorkerError(UserError):
    """A process that reads tiles ended by itself."""

    exit_code = ExitCode.FAILED


class LostRankError(UserError):
    """Another process of the run ended or does not answer."""

    exit_code = ExitCode.LOST_RANK


@dataclass(frozen=True)
class Supervisor:
    """The watchers of one training."""

    signals: StopSignals
    watchdog: Watchdog
    garbage: SteadyGarbageCollection

    def batches(self, loader: Iterable[T]) -> Iterator[T]:
        """The batches of a loader, until some rank is asked to stop: all ranks then end before the same step.

        A wait for a batch may be broken off in the middle. The caller keeps hold of the loader's own iterator, so that
        its workers are waited for after the state is saved, and not before.
        """
        iterator = iter(loader)
        while True:
            with self.phase(Phase.DATA):
                batch = self.signals.wait_for(lambda: next(iterator, _END))
            with self.phase(Phase.AGREEMENT):
                stop = self.signals.agreed()
            if stop or batch is _END:
                return
            with self.phase(Phase.STEP):
                yield batch  # type: ignore[misc]  # None only where a stop was asked for
            self.garbage.step()

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """Watch how long a block takes."""
        return self.watchdog.phase(phase)

    def rounds(self, batches: Iterator[T], count: int) -> Iterator[T | None]:
        """The batches of an evaluation in as many rounds as any rank has batches; None where this one has no more.

        Raises:
            StopRequested: on all ranks before the same round, if one of them is asked to stop.
        """
        for _ in range(count):
            self.watchdog.beat()
            batch = self.signals.wait_for(lambda: next(batches, None))
            self.signals.check()
            yield batch


@contextmanager
def supervision(limits: TimeLimits) -> Iterator[Supervisor]:
    """Watch over the training inside the block; after it the process is as it was.

    Raises:
        LostWorkerError: for torch's own error about a dead loader worker.
        LostRankError: for a collective that fails because another process is gone.
    """
    with (
        _explained_failures(),
        SteadyGarbageCollection() as garbage,
        Watchdog(limits) as watchdog,
        StopSignals() as signals,
    ):
        yield Supervisor(signals, watchdog, garbage)


@contextmanager
def _deaths_of_workers_first() -> Iterator[None]:
    """Where a connection fails because a loader worker died, let torch raise its error about the worker instead."""
    try:
        yield
    except (OSError, EOFError):
        time.sleep(1.0)  # torch raises when it receives SIGCHLD, which may come a moment later
        raise


@contextmanager
def _explained_failures() -> Iterator[None]:
    try:
        with _deaths_of_workers_first():
            yield
    except RuntimeError as error:
        text = " ".join(str(error).split())
        if text.startswith("DataLoader worker"):
            raise LostWorkerError(
                f"a process that reads tiles has ended by itself ({text}). Most often the machine ran out of memory: "
                "`dmesg` or the scheduler's log says so. Set train.num_workers or train.batch_size_per_gpu lower, or "
                "ask for more memory; the same command goes on from the last checkpoint"
            ) from error
        if isinstance(error, dist.DistError) or "gloo" in text or "pair closure" in text:
            raise LostRankError(
                f"another process of this run has ended or does not answer ({text}). Its own log, logs/log.txt or "
                "logs/log.txt.rankN in the output folder, says why; the same command goes on from the last checkpoint"
            ) from error
        raise
