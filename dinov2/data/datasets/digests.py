"""Which tiles a data set has, as a digest.

For kept features a tile counts as the same while its place is, and the file's size and time of change, or a tar's
fingerprint, are (`TileDataset.digest`). For a run that goes on, places and times do not count, since data is copied
from one disk to another (`TileDataset.order_digest`).
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from dinov2.errors import UserError

PIECE_ROWS = 1 << 20
MOST_SIZES = 4096  # files that are looked at, for each takes a file server up to a millisecond


class TileDigest:
    """A SHA-256 that takes in texts, arrays and the state of files; their order counts."""

    def __init__(self, *texts: str) -> None:
        """Begin with some texts."""
        self._digest = hashlib.sha256()
        self.add_texts(texts)

    def add_texts(self, texts: Iterable[str]) -> None:
        """Take in texts; those that are paths may have bytes that are not UTF-8."""
        for text in texts:
            encoded = os.fsencode(text)
            self._digest.update(len(encoded).to_bytes(8, "little") + encoded)

    def add_array(self, array: np.ndarray) -> None:
        """Take in an array of any type, which may be mapped into memory: it is read piece by piece."""
        self.add_texts([str(array.dtype), str(array.shape)])
        for first in range(0, len(array), PIECE_ROWS):
            self._digest.update(np.ascontiguousarray(array[first : first + PIECE_ROWS]).data)

    def add_file(self, path: Path) -> None:
        """Take in the path, the size and the time of the last change of a file.

        Raises:
            UserError: if it is not there.
        """
        try:
            found = path.stat()
        except OSError as error:
            raise UserError(f"{path} cannot be looked at: {error.strerror}") from error
        self.add_texts([str(path), f"{found.st_size} {found.st_mtime_ns}"])

    def add_sizes(self, path_of: Callable[[int], Path], count: int) -> None:
        """Take in the sizes of `count` files, or of `MOST_SIZES` of them, evenly spread."""
        for index in range(0, count, max(-(-count // MOST_SIZES), 1)):
            try:
                self.add_texts([str(path_of(index).stat().st_size)])
            except OSError:
                self.add_texts(["missing"])

    def hexdigest(self) -> str:
        """The digest of everything so far, 64 letters."""
        return self._digest.hexdigest()
