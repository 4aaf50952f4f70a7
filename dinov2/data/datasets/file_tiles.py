"""Tiles that are files of their own."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from dinov2.data.file_reader import patiently
from dinov2.data.reading_now import reading

from .base import TileDataset, TilePlace
from .digests import TileDigest


def largest_file(max_pixels: int) -> int:
    """Bytes that no encoded image of so many pixels exceeds: four channels of 16 bits, and room for tags."""
    return max_pixels * 8 + (1 << 20)


class FileTileDataset(TileDataset):
    """Subclasses name the file of a tile; nothing stays open between reads."""

    def path_of(self, index: int) -> Path:
        """The file of a tile.

        Raises:
            IndexError: outside 0 .. n-1.
        """
        raise NotImplementedError

    def get_image_data(self, index: int) -> bytes:
        """The whole file.

        Raises:
            TileReadError: if it cannot be read, or is too large to be a tile, as a slide among tiles is.
        """
        path = self.path_of(index)
        try:
            with reading(path):
                size = path.stat().st_size
                if size <= largest_file(self.max_pixels):
                    return patiently(path.read_bytes)
        except OSError as error:
            raise self.bad_tile(index, f"cannot be read: {error.strerror}") from error
        raise self.bad_tile(
            index,
            f"has {size:,} bytes, more than an image of the {self.max_pixels:,} pixels that data.max_pixels allows can "
            "have: slides are to be cut into tiles",
        )

    def digest(self) -> str:
        """SHA-256 over the path, size and time of change of every file."""
        digest = TileDigest()
        for index in range(len(self)):
            digest.add_file(self.path_of(index))
        return digest.hexdigest()

    def order_digest(self) -> str:
        """SHA-256 over the names of all files and the sizes of up to `MOST_SIZES` of them."""
        digest = TileDigest()
        for array in self.name_arrays():
            digest.add_array(array)
        digest.add_sizes(self.path_of, len(self))
        return digest.hexdigest()

    def name_arrays(self) -> Iterable[np.ndarray]:
        """Arrays that say the names of all files, from the folder of the data set on."""
        raise NotImplementedError

    def locate(self, index: int) -> TilePlace:
        """The file."""
        return TilePlace(str(self.path_of(index)), "")
