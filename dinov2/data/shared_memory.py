"""Room in /dev/shm, through which the batches of loader workers come.

A container has 64 MB of it unless told otherwise. Where a batch does not fit, torch prints a traceback from a thread
of the worker's queue and forgets the batch, which then is waited for. Here a worker compares what all will need with
the room that there was, before it gives out its first batch; and what its queue cannot send becomes an error.
"""

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import torch
from torch._utils import ExceptionWrapper

from dinov2.distributed import get_local_size
from dinov2.errors import UserError

from .worker_count import BATCHES

FOLDER = Path("/dev/shm")
REMEDY = (
    "Give the container more (docker run --shm-size=16g or --ipc=host; in Kubernetes an emptyDir of medium Memory at "
    "/dev/shm), or take fewer workers (train.num_workers, --num-workers; 0 needs none) or smaller batches"
)
# What torch says where an allocation fails (the error number that follows has nothing to do with it), and where a
# worker is killed since there is no memory for a page of its file.
_FULL = re.compile(r"unable to allocate shared memory|killed by signal: Bus error|[Ii]nsufficient shared memory")


def free_shared_memory() -> int | None:
    """Bytes that are free in /dev/shm; None where there is no such thing."""
    try:
        found = os.statvfs(FOLDER)
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


class RoomForBatches:
    """Collates in a loader's worker, and makes sure once that there is room for what all workers send."""

    def __init__(self, collate: Callable[[list[Any]], Any], num_workers: int) -> None:
        """Measure the room before any worker of the loader takes some of it."""
        self.collate = collate
        self.batches = BATCHES * num_workers * get_local_size()
        self.free = free_shared_memory() if num_workers else None

    def __call__(self, samples: list[Any]) -> Any:
        """The batch of some samples.

        Raises:
            UserError: if there is no room for it and those that will be on their way with it.
        """
        try:
            batch = self.collate(samples)
        except RuntimeError as error:  # torch's own collate function allocates there
            raise explained(error) from error
        if self.free is not None:
            needed = self.batches * tensor_bytes(batch)
            if needed > self.free:
                raise UserError(
                    f"the shared memory of this machine is too small: {FOLDER} has {_mib(self.free)} free, and "
                    f"{self.batches} batches of {_mib(tensor_bytes(batch))} will be in it at a time, {BATCHES} "
                    f"of each loader worker of {get_local_size()} process(es): {_mib(needed)}. {REMEDY}"
                )
            self.free = None
        return batch


def tensor_bytes(batch: Any) -> int:
    """Bytes of all tensors in a batch."""
    if isinstance(batch, torch.Tensor):
        return batch.untyped_storage().nbytes()
    if isinstance(batch, Mapping):
        batch = list(batch.values())
    if isinstance(batch, Sequence) and not isinstance(batch, str | bytes):
        return sum(map(tensor_bytes, batch))
    return 0


def explained(error: BaseException) -> BaseException:
    """An error of a worker as one that says what to do, if it is due to shared memory."""
    text = " ".join(str(error).split())
    if not _FULL.search(text):
        return error
    free = free_shared_memory()
    room = "" if free is None else f"; {_mib(free)} are free in {FOLDER} now"
    return UserError(f"the shared memory of this machine is full ({text:.250}{room}). {REMEDY}")


def _mib(count: int) -> str:
    return f"{count / 2**20:,.1f} MiB"


def report_failed_sends() -> None:
    """Let what this process's queues cannot send arrive as an error instead; for a loader's worker, which is done
    with each batch when it is in its queue."""
    Queue._on_queue_feeder_error = _send_error  # type: ignore[attr-defined]


def _send_error(queue: Queue, error: Exception, item: tuple[int, Any]) -> None:
    """Replace a batch that cannot be sent."""
    number, _ = item
    found = explained(error)
    where = f"in the queue of DataLoader worker process {os.getpid()}"
    queue.put((number, ExceptionWrapper((type(found), found, sys.exc_info()[2]), where=where)))
