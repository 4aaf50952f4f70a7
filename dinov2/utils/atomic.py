"""Files and folders that are whole or not there, whenever the power fails.

They are written aside under a name that says who writes, flushed to disk, and renamed into place. What a killed
writer leaves behind is hidden, never taken for the real thing, and removed by the next one.
"""

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dinov2.utils.outputs import output_errors

ABANDONED_AFTER = 86400.0  # seconds without a change after which a temporary of another machine counts as left behind

_TEMPORARY = re.compile(r"\.(?P<name>.+)\.(?P<host>[^.]+)\.(?P<process>\d+)\.[0-9a-f]{8}\.tmp")
_mine: set[Path] = set()  # the temporaries that this process is writing


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path to write; when the block succeeds it is flushed to disk and takes the place of `path`.

    Raises:
        OutputError: if it cannot be written.
    """
    path = Path(path)
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent, path.name)
        with temporary_path(path) as temporary, output_errors(path):  # also while the temporary fills the disk
            yield temporary
            fsync(temporary)
            temporary.replace(path)
            fsync(path.parent)


@contextmanager
def temporary_path(path: Path) -> Iterator[Path]:
    """A hidden path beside `path` for a file or a folder; what is left there at the end of the block is removed."""
    temporary = path.with_name(f".{path.name}.{_host()}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    with removed_at_end(temporary):
        yield temporary


@contextmanager
def removed_at_end(path: Path) -> Iterator[None]:
    """Remove what is at `path` at the end of the block, or of the process if a signal ends it before."""
    _mine.add(path)
    try:
        yield
    finally:
        remove(path)
        _mine.discard(path)


def remove_abandoned(folder: Path, name: str | None = None) -> int:
    """Remove what dead writers have left in a folder; returns how much that was.

    A writer on this machine is dead if its process is. Of writers elsewhere nothing is known: theirs are removed
    when nothing in them has changed for a day.

    Args:
        name: only temporaries of this file or folder.
    """
    count = 0
    for path in folder.glob(".*.tmp"):
        match = _TEMPORARY.fullmatch(path.name)
        if match and name in (None, match["name"]) and _is_abandoned(path, match["host"], int(match["process"])):
            remove(path)
            count += 1
    return count


def remove_at_end(path: Path) -> None:
    """Remove a file when the command ends, however that is, unless it has gone before."""
    _mine.add(path)


def remove_mine() -> None:
    """Remove all that this process has not written to the end, because it ends."""
    for path in list(_mine):
        remove(path)


def remove(path: Path) -> None:
    """Remove a file or a whole folder, if it is there; what cannot be removed stays."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def write_text(path: str | Path, text: str) -> None:
    """Write a whole UTF-8 file atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def fsync(path: Path) -> None:
    """Wait until a file or a folder's list of names is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _is_abandoned(path: Path, host: str, process: int) -> bool:
    if path in _mine:
        return False
    if host == _host():
        # The number of this process under another name: that of an earlier one, as where containers start anew.
        return process == os.getpid() or not _is_running(process)
    try:
        changed = max(item.lstat().st_mtime for item in (path, *path.rglob("*")))
    except OSError:  # its writer is at work
        return False
    return time.time() - changed > ABANDONED_AFTER


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _host() -> str:
    """This machine's name without dots."""
    return os.uname().nodename.partition(".")[0] or "localhost"
