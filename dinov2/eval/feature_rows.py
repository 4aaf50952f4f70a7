"""Where the rows of an (n, D) array are kept while the ranks compute them.

In every round each rank has some consecutive rows, possibly none, and the rows of the ranks follow each other.
"""

import os
from pathlib import Path
from typing import IO

import numpy as np
import torch
from torch import Tensor

from dinov2.distributed import all_gather_rows, barrier, is_main_process
from dinov2.distributed.outcomes import on_main
from dinov2.utils.atomic import remove_at_end
from dinov2.utils.outputs import output_errors


class MemoryRows:
    """All rows in the memory of every rank."""

    def __init__(self, samples: int, *, device: torch.device) -> None:
        """Prepare for `samples` rows, kept on `device`."""
        self._samples, self._device = samples, device
        self._rows: Tensor | None = None
        self._end = 0

    def add(self, first: int, rows: Tensor) -> None:
        """Share this rank's rows (m, ...) of a round, which begin at `first`; all ranks take part."""
        gathered = all_gather_rows(rows)
        if self._rows is None:
            self._rows = torch.empty((self._samples, *rows.shape[1:]), dtype=rows.dtype, device=self._device)
        self._rows[self._end : self._end + len(gathered)] = gathered
        self._end += len(gathered)

    def finish(self) -> Tensor:
        """All rows, (n, ...)."""
        assert self._rows is not None
        assert self._end == self._samples
        return self._rows


class FileRows:
    """Float32 rows in a file that every rank writes its own of, and maps into memory at the end.

    Ranks of one machine share the pages of the file, and a rank that reads some rows holds only those. The file is
    removed as soon as all have mapped it; its space is free when the rows are.
    """

    def __init__(self, samples: int, *, path: Path) -> None:
        """Prepare for `samples` rows in a file that all ranks see; it is made anew."""
        self._samples, self._path = samples, path
        self._file: IO[bytes] | None = None
        self._begin = 0  # bytes before the first row

    def add(self, first: int, rows: Tensor) -> None:
        """Write this rank's rows (m, D) of a round, which begin at `first`; all ranks take part.

        Raises:
            OutputError: if the file cannot be written.
        """
        with output_errors(self._path):
            if self._file is None:
                self._file = self._create(rows.shape[1])
            self._file.seek(self._begin + first * rows.shape[1] * rows.element_size())
            self._file.write(rows.cpu().numpy().tobytes())

    def finish(self) -> Tensor:
        """All rows, (n, D)."""
        assert self._file is not None
        with output_errors(self._path):
            self._file.close()
        barrier()
        rows = torch.from_numpy(np.load(self._path, mmap_mode="c"))
        barrier()
        if is_main_process():
            self._path.unlink()
        return rows

    def _create(self, width: int) -> IO[bytes]:
        """The file, opened to write into; the first rank has made it, and taken all the room that it needs."""

        def make() -> None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            remove_at_end(self._path)
            np.lib.format.open_memmap(self._path, mode="w+", dtype=np.float32, shape=(self._samples, width))
            if hasattr(os, "posix_fallocate"):
                with self._path.open("r+b") as file:
                    os.posix_fallocate(file.fileno(), 0, self._path.stat().st_size)

        on_main(make)
        self._begin = np.lib.format.open_memmap(self._path, mode="r").offset
        return self._path.open("r+b")
