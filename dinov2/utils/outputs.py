"""Faults of the place that is written to, told as such; and places that are tried before long work begins."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from dinov2.errors import UserError

PROBE_BYTES = 1 << 20
_PERMISSION = "permission denied. Ask its owner, or write elsewhere"
_FILE_IN_THE_WAY = "a file is where a folder is needed. Move that file away, or write elsewhere"
WRITING_ONLY = {  # what no reading can cause
    errno.ENOSPC: "the disk is full. Free some space, or write elsewhere",
    errno.EDQUOT: "your disk quota is used up (`quota -s` shows it). Remove files, or write elsewhere",
    errno.EFBIG: "no file may become that large here (`ulimit -f`, or the file system). Raise the limit, or write "
    "elsewhere",
    errno.EROFS: "the file system is read-only. Write elsewhere; a container needs a volume for it",
}
_REASONS = WRITING_ONLY | {
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
    errno.EIO: "the disk reports a fault (input/output error); `dmesg` says more. Write elsewhere",
    errno.ESTALE: "the file server has lost it (stale file handle). Mount it again, or write elsewhere",
    errno.ENOTDIR: _FILE_IN_THE_WAY,
    errno.EEXIST: _FILE_IN_THE_WAY,
    errno.EISDIR: "a folder is where a file is needed. Choose another name",
    errno.ENAMETOOLONG: "the name is too long. Choose a shorter one",
    errno.ENOENT: "the folder is gone. Write elsewhere",
}
_NO_INODES = "the disk has room, but for no more files (`df -i` shows it). Remove files, or write elsewhere"


class OutputError(UserError, OSError):
    """A file or folder cannot be written; nothing of it stays half-written."""


def output_error(path: str | Path, error: OSError) -> OutputError:
    """What to tell about a file, or a folder, that could not be written."""
    reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
    if error.errno == errno.ENOSPC and _lacks_inodes(path):
        reason = _NO_INODES
    into = "into " if _is_folder(path) and error.errno != errno.EISDIR else ""
    return OutputError(f"cannot write {into}{path}: {reason}.")


@contextmanager
def output_errors(path: Path) -> Iterator[None]:
    """Tell why a file, or anything in a folder, cannot be written in the block, if that is the fault of its place.

    Libraries hide the reason in errors of their own: then the place is tried again.

    Raises:
        OutputError: for such a fault; errors of other files, and all else, stay as they are.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        fault = _fault_of_place(path, error)
        if fault is None:
            raise
        raise output_error(path, fault) from error


def try_file(path: Path) -> None:
    """Make sure that a file can be written, before the work that makes it; its folder is made if need be.

    Raises:
        OutputError: if it cannot.
    """
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    except OSError as error:
        raise output_error(path, error) from error
    try_folder(path.parent)


def try_folder(folder: Path) -> None:
    """Make sure that files can be written into a folder, before the work that makes them; it is made if need be.

    Raises:
        OutputError: if they cannot.
    """
    made = [one for one in (folder, *folder.parents) if not _is_folder(one)]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _write_probe(folder)
    except OSError as error:
        told = output_error(folder, error)
        for one in made:
            with suppress(OSError):
                one.rmdir()
        raise told from error


def _fault_of_place(path: Path, error: BaseException) -> OSError | None:
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and (cause.errno in WRITING_ONLY or _is_about(cause.filename, path)):
            return cause
        told = re.search(r"\(os error (\d+)\)", str(cause))  # by a library in Rust, as safetensors
        if told and int(told[1]) in WRITING_ONLY:
            return OSError(int(told[1]), os.strerror(int(told[1])))
        cause = cause.__cause__ or cause.__context__
    try:
        _write_probe(path if _is_folder(path) else path.parent)
    except OSError as fault:
        return fault
    return None


def _is_about(name: object, path: Path) -> bool:
    """Whether an error names a path, a temporary, or a folder above."""
    if not isinstance(name, str | bytes | os.PathLike):
        return False
    named = Path(os.fsdecode(name))
    return path.is_relative_to(named) or any(part.endswith(".tmp") for part in named.parts)


def _write_probe(folder: Path) -> None:
    """Write a little that has no name, so that nothing stays."""
    import tempfile

    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(PROBE_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _is_folder(path: str | Path) -> bool:
    try:
        return Path(path).is_dir()
    except OSError:
        return False


def _lacks_inodes(path: str | Path) -> bool:
    try:
        room = os.statvfs(path if _is_folder(path) else Path(path).parent)
    except OSError:
        return False
    return bool(room.f_files and not room.f_favail and room.f_bavail)
