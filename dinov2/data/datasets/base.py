"""What every data set of tiles does: bytes to RGB image to (transformed image, target)."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.data import Dataset

from dinov2.data.decoding import MAX_PIXELS, ImageError, decode_rgb
from dinov2.data.group_names import patients
from dinov2.data.groups import Groups, UnknownGroupsError
from dinov2.errors import UserError

# What does know a kind of groups, for messages.
_WHO_KNOWS = defaultdict(
    lambda: "expected slide, patient, site or cohort",
    slide="a list that says it does: CSV:file=LIST.csv:group=COLUMN",
    site="a list that says it does: CSV:file=LIST.csv:site=COLUMN",
    cohort="tars that scripts/concat_entries.py has joined do",
)


@dataclass(frozen=True)
class TilePlace:
    """Where a tile is kept: a file, the member of it, and for tars the bytes."""

    archive: str
    member: str
    start: int | None = None
    end: int | None = None

    def __str__(self) -> str:
        member = f'"{self.member}" of ' if self.member else ""
        place = "" if self.start is None else f" at bytes {self.start:,}-{self.end:,}"
        return f"{member}{self.archive}{place}"


class TileReadError(UserError):
    """One tile that cannot be used, while others may be good.

    Attributes:
        place: where it is.
        reason: what is wrong with it.
    """

    def __init__(self, message: str, *, place: TilePlace | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.place = place
        self.reason = reason or message


class TileDataset(Dataset):
    """Subclasses give bytes (or an image), a target and a place by index, and their length.

    Opening a file waits for the first read, so that a data set can be pickled to a worker process and every
    process reads through handles of its own.
    """

    def __init__(
        self,
        *,
        transform: Callable[[Image.Image], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        """Store what is done with a tile; images of more than `max_pixels` are refused before they are decoded."""
        self.transform = transform
        self.target_transform = target_transform
        self.max_pixels = max_pixels

    def get_image_data(self, index: int) -> bytes:
        """The stored bytes of a tile: an encoded image."""
        raise NotImplementedError

    def get_image(self, index: int) -> Image.Image:
        """The tile in RGB.

        Raises:
            TileReadError: if it is damaged.
        """
        try:
            return decode_rgb(self.get_image_data(index), max_pixels=self.max_pixels)
        except ImageError as error:
            raise self.bad_tile(index, f"is not a usable image: {error}") from error

    def get_target(self, index: int) -> int:
        """The class index."""
        raise NotImplementedError

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        raise NotImplementedError

    def locate(self, index: int) -> TilePlace:
        """Where a tile is kept, for messages and reports."""
        raise NotImplementedError

    def get_groups(self, kind: str) -> Groups:
        """Which tiles belong together.

        Args:
            kind: "slide", which may mean a patient, "patient", "site" or "cohort".
        Raises:
            UnknownGroupsError: if the data set does not know.
        """
        if kind == "patient":
            return patients(self.get_groups("slide"))
        raise UnknownGroupsError(f"this kind of data set does not know the {kind} of its tiles; {_WHO_KNOWS[kind]}")

    def digest(self) -> str:
        """SHA-256 of which tiles these are, in order: another one where a tile was changed, replaced or moved.

        What was computed from tiles is used again only where it is the same. Labels and groups are not
        part of it, and no tile is read.

        Raises:
            UserError: if files are missing.
        """
        raise NotImplementedError

    def order_digest(self) -> str:
        """SHA-256 of which tiles these are, in order, wherever they are kept: copies in another place have the same.

        A run that goes on compares it. Labels and groups are not part of it.
        """
        raise NotImplementedError

    def checksums_digest(self) -> str | None:
        """SHA-256 of the recorded checksums of all tiles; None where there are none."""
        return None

    def bad_tile(self, index: int, reason: str) -> TileReadError:
        """The error that says which tile is bad, and why."""
        place = self.locate(index)
        return TileReadError(f"tile {index:,} ({place}) {reason}", place=place, reason=reason)

    def __len__(self) -> int:
        raise NotImplementedError

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        """The transformed image and target of a tile.

        Raises:
            TileReadError: if the tile is damaged.
        """
        image: Any = self.get_image(index)
        target: Any = self.get_target(index)
        if self.transform is not None:
            image = self.transform(image)
        if self.target_transform is not None:
            target = self.target_transform(target)
        return image, target
