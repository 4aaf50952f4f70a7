"""Enough open files for what is about to begin, or a word before it instead of a hang in the middle."""

import errno
import resource
import sys
from pathlib import Path

from dinov2.errors import UserError

SPARE = 32  # for libraries, logs, checkpoints and sockets
TOO_MANY = (errno.EMFILE, errno.ENFILE)


def need_open_files(count: int, what: str) -> None:
    """Make sure that this process and its children may have so many more files open; the limit is raised if it may be.

    Raises:
        UserError: if the limit is too low and not ours to raise.
    """
    needed = len(list(Path("/dev/fd").iterdir())) + count + SPARE
    if needed <= limit():
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if needed > hard != resource.RLIM_INFINITY:
        raise too_many_files(f"{what} need about {needed:,} open files", needed)
    resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


def limit() -> int:
    """How many files a process may have open."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def too_many_files(what: str = "too many files are open", needed: int = 0) -> UserError:
    """The error of a limit on open files."""
    enough = max(needed, 4096)
    return UserError(
        f"{what}, and the limit is {limit():,}. Raise it before the command (ulimit -n {enough}; in a container "
        f"--ulimit nofile={enough}), or ask for fewer workers."
    )
