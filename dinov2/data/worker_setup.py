"""What a loader's worker process does before it reads."""

import faulthandler
import gc
import signal
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from dinov2.logging import log_descriptor
from dinov2.utils.child_processes import follow_parent
from dinov2.utils.open_files import need_open_files
from dinov2.utils.signals import signals_held

from .reading_now import ReadingBoard

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
        faulthandler.register(signal.SIGQUIT, file=log_descriptor(), all_threads=True)
