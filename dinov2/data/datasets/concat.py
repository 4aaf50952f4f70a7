"""Several data sets as one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dinov2.data.groups import Groups
from dinov2.errors import UserError

from .base import TileDataset, TilePlace
from .digests import TileDigest
from .stretches import Stretches


class ConcatTileDataset(TileDataset):
    """The tiles of several data sets, one data set after the other.

    Targets stay what they are in their data set, so that class 0 of one may mean something else than that of another.

    Attributes:
        parts: the data sets; their own transforms are not used.
    """

    def __init__(self, parts: Sequence[TileDataset], **options: Any) -> None:
        """Join data sets.

        Args:
            options: of `TileDataset`; the limit of pixels is that of the parts.
        Raises:
            UserError: if there are none.
        """
        super().__init__(**options)
        if not parts:
            raise UserError("an empty list of data sets has no tiles to train on; name at least one")
        self.parts = list(parts)
        self._stretches = Stretches(map(len, self.parts))

    def get_image_data(self, index: int) -> bytes:
        """The stored bytes of a tile."""
        part, offset = self._find(index)
        return part.get_image_data(offset)

    def get_image(self, index: int) -> Image.Image:
        """The tile in RGB."""
        part, offset = self._find(index)
        return part.get_image(offset)

    def get_target(self, index: int) -> int:
        """The class index that the tile has in its data set."""
        part, offset = self._find(index)
        return part.get_target(offset)

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return np.concatenate([part.get_targets() for part in self.parts])

    def locate(self, index: int) -> TilePlace:
        """Where the tile's data set keeps it."""
        part, offset = self._find(index)
        return part.locate(offset)

    def digest(self) -> str:
        """SHA-256 over the digests of the data sets."""
        return TileDigest(*(part.digest() for part in self.parts)).hexdigest()

    def order_digest(self) -> str:
        """SHA-256 over the digests of the data sets."""
        return TileDigest(*(part.order_digest() for part in self.parts)).hexdigest()

    def checksums_digest(self) -> str | None:
        """SHA-256 over those of the data sets, if all of them have checksums."""
        found = [part.checksums_digest() for part in self.parts]
        return None if None in found else TileDigest(*filter(None, found)).hexdigest()

    def get_groups(self, kind: str) -> Groups:
        """The data sets themselves for "dataset"; else the groups of all of them, "0/name" those of the first."""
        names = [str(number) for number in range(len(self.parts))]
        if kind == "dataset":
            sizes = np.array(list(map(len, self.parts)))
            return Groups(np.column_stack([np.arange(len(sizes)), np.cumsum(sizes) - sizes, sizes]), names)
        return Groups.concatenate([part.get_groups(kind) for part in self.parts], prefixes=names)

    def __len__(self) -> int:
        return len(self._stretches)

    def _find(self, index: int) -> tuple[TileDataset, int]:
        number, offset = self._stretches.find(index)
        return self.parts[number], offset
