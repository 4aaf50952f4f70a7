"""What every data set of tiles does: bytes to RGB image to (transformed image, target)."""

import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dinov2.errors import UserError


class TileReadError(UserError):
    """A tile whose bytes cannot be read or are no image."""


class TileDataset(Dataset):
    """Subclasses give bytes, a target and a description by index, and their length.

    Opening a file waits for the first read, so that a data set can be pickled to a worker process and every
    process reads through handles of its own.
    """

    def __init__(
        self,
        *,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.transform = transform
        self.target_transform = target_transform

    def get_image_data(self, index: int) -> bytes:
        """The encoded image."""
        raise NotImplementedError

    def get_target(self, index: int) -> int:
        """The class index."""
        raise NotImplementedError

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        raise NotImplementedError

    def describe(self, index: int) -> str:
        """Where a tile is, for messages."""
        raise NotImplementedError

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The transformed image and target of a tile.

        Raises:
            TileReadError: if the tile is damaged.
        """
        image: Any = decode_rgb(self.get_image_data(index), self.describe(index))
        target: Any = self.get_target(index)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target


def decode_rgb(data: bytes, description: str) -> Image.Image:
    """Decode an encoded image to RGB.

    Raises:
        TileReadError: says which tile, what was expected and what was found.
    """
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    # Pillow raises SyntaxError for some broken PNG chunks and ValueError for some broken headers.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        start = data[:4].hex(" ") or "nothing"
        raise TileReadError(
            f"{description} is not a readable image: expected JPEG, PNG or TIFF, found {len(data):,} bytes "
            f"starting with {start} ({error})"
        ) from error
