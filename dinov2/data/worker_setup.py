"""What a loader's worker process does before it reads."""

import faulthandler
import gc
import os
import signal
import threading
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from dinov2.logging import log_descriptor
from dinov2.utils.signals import signals_held

from .reading_now import ReadingBoard

PARENT_CHECK = 2.0  # seconds after which a worker has noticed that its parent is gone


def start_workers(loader: DataLoader) -> Iterator[Any]:
    """Begin a pass over a loader; signals to stop reach its workers only when they are ready for them."""
    with signals_held():
        return iter(loader)


class WorkerSetup:
    """Prepares worker processes; torch calls it in each of them as `worker_init_fn`."""

    def __init__(self, num_workers: int) -> None:
        self.board = ReadingBoard(num_workers)
        self.parent = os.getpid()

    def __call__(self, worker: int) -> None:
        """Set up worker number `worker`."""
        torch.set_num_threads(1)  # there are as many workers as cores already
        gc.enable()  # the training collects at chosen steps and workers are forked from it
        self.board.occupy(worker)
        leave_signals_to(self.parent)
        faulthandler.register(signal.SIGQUIT, file=log_descriptor(), all_threads=True)


def leave_signals_to(parent: int) -> None:
    """Go on when the whole process group is asked to stop; only the parent process ends this one, and its own end.

    Schedulers and terminals send a signal to all processes of a job. A worker that ended at once would take the
    training down in the middle of a step, before it could save.
    """
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # macOS, where no scheduler sends anything
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_with(parent: int) -> None:
    """End this process when its parent says so, or is gone; also while the main thread is stuck in a read."""
    while os.getppid() == parent:
        received = signal.sigtimedwait({signal.SIGTERM}, PARENT_CHECK)
        if received is not None and received.si_pid == parent:
            break
    os._exit(0)
