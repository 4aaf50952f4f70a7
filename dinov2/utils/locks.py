"""A lock between commands, on one machine or several, while files that belong together are replaced."""

import errno
import fcntl
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinov2.errors import UserError
from dinov2.utils.atomic import removed_at_end

PATIENCE, NOTICE, PAUSE = 600.0, 10.0, 0.02  # seconds; joining 100 million rows takes one minute
NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}


@contextmanager
def locked(path: Path, *, patience: float | None = None) -> Iterator[None]:
    """Be the only one who has the lock `path` for the block; others wait.

    It is a lock by flock, which ends with its holder however that ends. Some file systems have none (NFS without its
    lock service, Lustre without `-o flock`). There the lock is a file beside it, which only one can create, and which
    stays behind if its holder is killed.

    Args:
        patience: seconds that are waited (ten minutes).
    Raises:
        UserError: another command has it for longer.
        OSError: the file cannot be created.
    """
    patience = PATIENCE if patience is None else patience
    began, told = time.monotonic(), False
    while (held := _take(path)) is None:
        if time.monotonic() - began > patience:
            raise UserError(
                f"another command has been writing into {path.parent} for {patience:,.0f} s. Wait until it ends, or "
                f"stop it; if there is none, delete {path} and {_beside(path)}."
            )
        if not told and time.monotonic() - began > NOTICE:
            print(f"waiting for another command that writes into {path.parent}", file=sys.stderr)
            told = True
        time.sleep(PAUSE)
    descriptor, file = held
    try:
        with removed_at_end(file):
            yield
    finally:
        os.close(descriptor)


def _take(path: Path) -> tuple[int, Path] | None:
    """The open lock and the file to remove at the end; None while another has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(descriptor), path.stat()):  # else its last holder has removed it meanwhile
            return descriptor, path
    except (BlockingIOError, FileNotFoundError):
        pass
    except OSError as error:
        if error.errno in NO_LOCKS:
            return _create(descriptor, _beside(path))
        raise
    os.close(descriptor)
    return None


def _create(descriptor: int, path: Path) -> tuple[int, Path] | None:
    """The same where the file system has no locks."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL, 0o666))
    except FileExistsError:
        os.close(descriptor)
        return None
    return descriptor, path


def _beside(path: Path) -> Path:
    return path.with_name(path.name + ".held")
