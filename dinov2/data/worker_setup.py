"""What a loader's worker process does before it reads."""

import faulthandler
import gc
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from torch.utils.data import DataLoader, default_collate

from dinov2.errors import ExitCode, UserError
from dinov2.logging import log_descriptor
from dinov2.utils.child_processes import follow_parent
from dinov2.utils.open_files import need_open_files
from dinov2.utils.signals import signals_held

from .reading_now import ReadingBoard
from .shared_memory import RoomForBatches, explained, report_failed_sends


def worker_options(num_workers: int, collate_fn: Callable[[list[Any]], Any] | None = None) -> dict[str, Any]:
    """What a loader needs to be told so that its workers are prepared and there is room for their batches."""
    return {
        "num_workers": num_workers,
        "worker_init_fn": WorkerSetup(num_workers),
        "collate_fn": RoomForBatches(collate_fn or default_collate, num_workers),
    }


FILES_OF_A_WORKER = 12  # pipes, and the tensors of two batches


def start_workers(loader: DataLoader) -> Iterator[Any]:
    """Begin a pass over a loader; signals to stop reach its workers only when they are ready for them."""
    with signals_held():
        return iter(loader)


class WorkerSetup:
    """Prepares worker processes; torch calls it in each of them as `worker_init_fn`."""

    def __init__(self, num_workers: int) -> None:
        need_open_files(num_workers * FILES_OF_A_WORKER, f"{num_workers} loader workers")
        self.board = ReadingBoard(num_workers)

    def __call__(self, worker: int) -> None:
        """Set up worker number `worker`."""
        torch.set_num_threads(1)  # there are as many workers as cores already
        gc.enable()  # the training collects at chosen steps and workers are forked from it
        self.board.occupy(worker)
        follow_parent()
        report_failed_sends()
        faulthandler.register(signal.SIGQUIT, file=log_descriptor(), all_threads=True)


class LostWorkerError(UserError):
    """A process that reads tiles ended by itself."""

    exit_code = ExitCode.FAILED


@contextmanager
def explained_worker_losses(workers: Sequence[BaseProcess] = ()) -> Iterator[None]:
    """Inside the block an error that is due to a loader worker says what to do.

    Args:
        workers: processes whose end may show as another error than torch's own.
    Raises:
        LostWorkerError: where a worker died.
        UserError: where there is not enough shared memory for its batches.
    """
    try:
        yield
    except UserError:
        raise
    except (RuntimeError, OSError, EOFError) as error:
        found = explained(error)
        if isinstance(found, UserError):
            raise found from error
        text = " ".join(str(error).split())
        if text.startswith("DataLoader worker") or (not isinstance(error, RuntimeError) and _has_lost(workers)):
            raise LostWorkerError(
                f"a process that reads tiles has ended by itself ({text}). Most often the machine ran out of memory: "
                "`dmesg` or the scheduler's log says so. Take fewer workers (train.num_workers, --num-workers) or "
                "smaller batches, or ask for more memory; a training goes on from its last checkpoint with the same "
                "command"
            ) from error
        raise


def _has_lost(workers: Sequence[BaseProcess], patience: float = 1.0) -> bool:
    """Whether a worker has died; a connection to it fails up to `patience` seconds before that is known."""
    deadline = time.monotonic() + patience if workers else 0.0
    try:
        while all(worker.exitcode in (None, 0) for worker in workers):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
    except RuntimeError:  # by which torch tells it
        pass
    return True
