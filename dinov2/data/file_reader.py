"""Reading byte ranges of large files: tiles out of tars, rows out of indices.

pread instead of a memory map: a file that shrinks under a running job gives a short read, which is an error with a
message, where a map would kill the process; and the pages that a worker has touched do not count as its memory.
"""

import errno
import math
import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from dinov2.data.tar_index.numpy_files import check_array
from dinov2.errors import UserError
from dinov2.utils.open_files import TOO_MANY, too_many_files

from .reading_now import reading

# What a network file system answers while a server restarts; reading again through a fresh handle helps.
_PASSING = {errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN}
_ATTEMPTS = 4
_PAUSE = 0.1  # seconds before the second attempt, twice as long before each further one


class FileChangedError(UserError):
    """A file that is not what it was when it was opened; nothing in it can be trusted."""


def patiently(read: Callable[[], bytes], *, again: Callable[[], None] = lambda: None) -> bytes:
    """What `read` returns, asked again while the storage answers with an error that passes.

    Args:
        again: called before each further attempt.
    Raises:
        OSError: if the storage still fails after four attempts in 0.7 seconds, or in a way that does not pass.
    """
    for attempt in range(_ATTEMPTS - 1):
        try:
            return read()
        except OSError as error:
            if error.errno in TOO_MANY:  # of which no tile is to blame
                raise too_many_files() from error
            if error.errno not in _PASSING:
                raise
        again()
        time.sleep(_PAUSE * 2**attempt)
    return read()


class FileReader:
    """Byte ranges of one file; opens it at the first read of each process."""

    def __init__(self, path: str | Path, *, advice: str = "") -> None:
        """Remember the size of a file.

        Args:
            advice: what to do where it is missing.
        Raises:
            UserError: if it is.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{self.path} does not exist. {advice}".strip())
        self.size = self.path.stat().st_size
        self._descriptor: int | None = None
        self._process = -1

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_descriptor": None, "_process": -1}

    def __del__(self) -> None:
        if getattr(self, "_descriptor", None) is not None:
            self.close()

    def read(self, start: int, end: int) -> bytes:
        """Bytes start to end, end excluded.

        Raises:
            FileChangedError: if they are not all there.
            OSError: if the storage fails, also when asked again.
        """
        with reading(f"bytes {start:,}-{end:,} of {self.path}"):
            data = patiently(lambda: os.pread(self._open(), end - start, start), again=self.close)
        if len(data) != end - start:
            raise FileChangedError(
                f"{self.path} ends before byte {end:,}: it had {self.size:,} bytes when it was opened and was cut off "
                "or replaced since. Put it back, or index it again with scripts/infer_entries.py"
            )
        return data

    def _open(self) -> int:
        if self._descriptor is None or self._process != os.getpid():
            self._descriptor = os.open(self.path, os.O_RDONLY)
            self._process = os.getpid()
            size = os.fstat(self._descriptor).st_size
            if size != self.size:
                raise FileChangedError(
                    f"{self.path} was replaced while the run went on: it had {self.size:,} bytes, now {size:,}. "
                    "Put it back, or index it again with scripts/infer_entries.py and start again"
                )
        return self._descriptor

    def close(self) -> None:
        """Close this process's handle; that of a parent process is the parent's."""
        if self._descriptor is not None and self._process == os.getpid():
            os.close(self._descriptor)
        self._descriptor = None


class RowReader:
    """Rows of an array in a `.npy` file, (n,) or (n, columns)."""

    def __init__(self, path: str | Path, *, dtype: str) -> None:
        """Check the header.

        Raises:
            SideFileError: if the file is missing or damaged, or has another dtype.
        """
        header = check_array(path, dtype=dtype)
        self._reader = FileReader(path)
        self._dtype = np.dtype(dtype)
        self._offset = header.offset
        self._row_bytes = self._dtype.itemsize * math.prod(header.shape[1:])
        self._length = header.shape[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> np.ndarray:
        """Row (columns,), or (1,) of a one-dimensional array.

        Raises:
            IndexError: outside 0 .. n-1.
        """
        if not 0 <= index < self._length:
            raise IndexError(f"row {index} of {self._length}")
        start = self._offset + index * self._row_bytes
        return np.frombuffer(self._reader.read(start, start + self._row_bytes), self._dtype)
