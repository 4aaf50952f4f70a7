"""Which tiles a data set has, as a digest: what was computed from tiles is used again only for the same ones.

A tile counts as the same while its place is, and the file's size and time of change, or a tar's fingerprint, are.
"""

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dinov2.errors import UserError

PIECE_ROWS = 1 << 20


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
            self._digest.update(np.ascontiguousarray(array[first : first + PIECE_ROWS]).tobytes())

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

    def hexdigest(self) -> str:
        """The digest of everything so far, 64 letters."""
        return self._digest.hexdigest()
