"""What watches over a training loop: requests to stop, hangs, lost processes, pauses of the garbage collector."""

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from typing import Any, TypeVar

import torch.distributed as dist
from torch.utils.data import DataLoader

from dinov2.data.worker_setup import explained_worker_losses, start_workers
from dinov2.errors import LostRankError
from dinov2.utils.garbage import SteadyGarbageCollection

from .preemption import StopSignals
from .watchdog import Phase, TimeLimits, Watchdog

T = TypeVar("T")
_END: Any = object()


@dataclass(frozen=True)
class Supervisor:
    """The watchers of one training."""

    signals: StopSignals
    watchdog: Watchdog
    garbage: SteadyGarbageCollection
    workers: list[BaseProcess]  # of the loaders in use
    # Passes over loaders by what they are for. One that is broken off waits for its workers when it is let go, which
    # has to be after the state is saved.
    passes: dict[str, Iterator[Any]] = field(default_factory=dict)

    def start(self, loader: DataLoader) -> Iterator[Any]:
        """Begin the training's pass over its loader."""
        with self.phase(Phase.DATA):
            batches = start_workers(loader)
        self._keep("training", batches)
        return batches

    def steps(self, batches: Iterator[T]) -> Iterator[T]:
        """What each step takes, until some rank is asked to stop: all ranks then end before the same step."""
        while True:
            with self.phase(Phase.DATA):
                batch = self.signals.wait_for(lambda: next(batches, _END))
            with self.phase(Phase.AGREEMENT):
                stop = self.signals.agreed()
            if stop or batch is _END:
                return
            with self.phase(Phase.STEP):
                yield batch  # type: ignore[misc]  # None only where a stop was asked for
            self.garbage.step()

    @contextmanager
    def steering(self) -> Iterator[None]:
        """Inside the block signals to stop wait for the end of a step, and garbage is collected at chosen steps."""
        self.watchdog.show_stacks_on_request()  # in the log, which is open by now
        with self.garbage, self.signals:
            yield

    def phase(self, phase: Phase) -> AbstractContextManager[None]:
        """Watch how long a block takes."""
        return self.watchdog.phase(phase)

    def rounds(self, batches: Iterator[T], count: int) -> Iterator[T | None]:
        """The batches of an evaluation in as many rounds as any rank has batches; None where this one has no more.

        Raises:
            StopRequested: on all ranks before the same round, if one of them is asked to stop.
        """
        self._keep("evaluation", batches)
        for _ in range(count):
            self.watchdog.beat()
            batch = self.signals.wait_for(lambda: next(batches, None))
            self.signals.check()
            yield batch
        del self.passes["evaluation"]

    def _keep(self, purpose: str, batches: Iterator[Any]) -> None:
        self.passes[purpose] = batches
        self.workers[:] = active_children()


@contextmanager
def supervision(limits: TimeLimits) -> Iterator[Supervisor]:
    """Watch over the run inside the block; after it the process is as it was.

    Raises:
        LostWorkerError: where an error is due to a loader worker that died.
        LostRankError: where an error is due to another process of the run that is gone.
    """
    workers: list[BaseProcess] = []
    with _explained_losses(workers), Watchdog(limits) as watchdog:
        yield Supervisor(StopSignals(), watchdog, SteadyGarbageCollection(), workers)


@contextmanager
def _explained_losses(workers: Sequence[BaseProcess]) -> Iterator[None]:
    with explained_worker_losses(workers):
        try:
            yield
        except RuntimeError as error:
            text = " ".join(str(error).split())
            if isinstance(error, dist.DistError) or "gloo" in text or "pair closure" in text:
                raise LostRankError(
                    f"another process of this run has ended or does not answer ({text}). Its own log, logs/log.txt or "
                    "logs/log.txt.rankN in the output folder, says why; the same command goes on from the last "
                    "checkpoint"
                ) from error
            raise
