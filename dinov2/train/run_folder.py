"""The folder of a run: one job at a time, and nothing in it is overwritten by a run that starts over."""

import fcntl
import logging
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from dinov2.distributed import barrier, is_main_process
from dinov2.distributed.outcomes import on_main
from dinov2.errors import UserError
from dinov2.logging.metrics_file import METRICS_FILE
from dinov2.logging.wandb_sink import RUN_ID_FILE

logger = logging.getLogger("dinov2")

LOCK = ".lock"
RUN_FILES = ("checkpoints", "eval", "results", METRICS_FILE, "tensorboard", "wandb", RUN_ID_FILE)
# Seconds to wait for a lock that another machine holds: a file server keeps that of a crashed machine for about 90.
PATIENCE = 120.0


@contextmanager
def locked(output_dir: Path, *, patience: float = PATIENCE) -> Iterator[None]:
    """Keep other jobs out of a run's folder for the block; all ranks call it.

    The main process holds a POSIX record lock on a file, which works between machines on NFS, and which ends with
    its process however that ends; unlike a lock by flock it does not pass on to forked processes, such as a loader's
    workers, which may live a little longer.

    Args:
        patience: seconds to wait for a job on another machine to end.
    Raises:
        UserError: on all ranks, if another job has the lock.
    """
    handle: IO[str] | None = None

    def take() -> None:
        nonlocal handle
        output_dir.mkdir(parents=True, exist_ok=True)
        handle = _take_lock(output_dir / LOCK, patience)

    on_main(take)
    try:
        yield
    finally:
        if handle is not None:
            handle.close()


def set_aside(output_dir: Path) -> None:
    """Move what a run has written into output_dir/before-N, for a run that starts over; nothing is deleted."""
    written = [output_dir / name for name in RUN_FILES if (output_dir / name).exists()]
    if is_main_process() and written:
        number = 1
        while (aside := output_dir / f"before-{number}").exists():
            number += 1
        aside.mkdir()
        for path in written:
            path.rename(aside / path.name)
        logger.warning(f"starting over: what the run before has written is now in {aside}")
    barrier()


def _take_lock(path: Path, patience: float) -> IO[str]:
    """The open file with the lock on it."""
    handle = path.open("a+", encoding="utf-8")
    deadline = time.monotonic() + patience
    while not _try_lock(handle):
        handle.seek(0)
        holder = handle.read().strip() or "another job"
        elsewhere = not holder.endswith(f"on {socket.gethostname()}")
        if not elsewhere or time.monotonic() > deadline:
            handle.close()
            raise UserError(
                f"{path.parent} belongs to a run that goes on: {holder}. Wait until it ends, stop it, or give another "
                "--output-dir"
            )
        logger.info(f"waiting for {path.parent}, which is in use by {holder}")
        time.sleep(5)
    handle.truncate(0)
    handle.write(f"process {os.getpid()} on {socket.gethostname()}\n")
    handle.flush()
    return handle


def _try_lock(handle: IO[str]) -> bool:
    """Whether the file is locked for this process; also where the file system knows no locks."""
    try:
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError as error:
        logger.warning(f"no lock on {handle.name} ({error}): make sure that no other job uses the folder")
    return True
