"""ImageNet-22k as tars, one for each class, found through DINOv2's `.npy` files."""

import logging
import os
import zlib
from array import array
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.data.file_reader import FileReader
from dinov2.data.hidden import is_hidden
from dinov2.data.tar_index.headers import BLOCK
from dinov2.data.tar_index.members import Members
from dinov2.errors import UserError

from .base import TileDataset, TilePlace
from .digests import TileDigest
from .file_tiles import largest_file
from .handles import Handles
from .npy_tables import load_texts, map_table, save_array

logger = logging.getLogger("dinov2")

# What a row of entries.npy has, and the kinds of it: numbers and texts.
ENTRY_FIELDS = {"class_index": "u", "class_id": "U", "start_offset": "u", "end_offset": "u", "filename": "U"}
_GZIP = b"\x1f\x8b"
_GZIP_WINDOW = 31  # zlib's way to say: a gzip stream


class ImageNet22k(TileDataset):
    """`ImageNet22k:root=...:extra=...`: the images in the order of their entries.

    root/{class_id}.tar has the images of a class, extra/entries.npy a row for each image, extra/class-ids.npy the
    class ids by class index. A few images are gzipped inside their tar. Nothing is read before the length, a class or
    an image is asked for, so that `dump_extra` can make the files.
    """

    def __init__(self, *, root: str, extra: str, **options: Any) -> None:
        """Store where things are.

        Args:
            root: has the tars.
            extra: has, or gets, the `.npy` files.
            options: of `TileDataset`.
        """
        super().__init__(**options)
        self.root, self.extra = Path(root), Path(extra)
        self._length: int | None = None
        self._maps: dict[str, Any] = {}
        self._tars: Handles[FileReader] = Handles()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a memory map would be pickled as a copy of all entries

    def dump_extra(self) -> None:
        """Make the `.npy` files from the tars.

        Raises:
            UserError: if there are no tars, or one is damaged.
        """
        class_ids = sorted(path.stem for path in self.root.glob("*.tar") if not is_hidden(path.name))
        if not class_ids:
            raise UserError(f"folder {self.root} has no tars; expected one for each class, such as n01440764.tar")
        self.extra.mkdir(parents=True, exist_ok=True)
        save_array(self.extra / "entries.npy", _entries(self.root, class_ids))
        save_array(self.extra / "class-ids.npy", np.array(class_ids))

    @property
    def entries(self) -> np.ndarray:
        """(n,) rows with the fields of `ENTRY_FIELDS`, memory-mapped.

        An image goes from its header block, at start_offset, to the header block of the next or to its own end.
        """
        if "entries" not in self._maps:
            path = self.extra / "entries.npy"
            self._maps["entries"] = map_table(path, fields=ENTRY_FIELDS, advice=self._advice())
        return self._maps["entries"]

    @property
    def class_ids(self) -> list[str]:
        """Class ids by class index."""
        if "class-ids" not in self._maps:
            self._maps["class-ids"] = load_texts(self.extra / "class-ids.npy", advice=self._advice())
        return self._maps["class-ids"]

    def find_class_id(self, class_index: int) -> str:
        """Id of a class."""
        return self.class_ids[class_index]

    def get_class_id(self, index: int) -> str:
        """Id of an image's class."""
        return str(self._entry(index)["class_id"])

    def get_image_data(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            TileReadError: if the storage fails, or the entry or the compression is damaged.
            FileChangedError: if the tar ends before the image.
        """
        entry = self._entry(index)
        start, end = int(entry["start_offset"]) + BLOCK, int(entry["end_offset"])
        if start >= end or end - start > largest_file(self.max_pixels):
            raise self.bad_tile(index, f"cannot be an image: its entry says {end - start:,} bytes")
        class_id = str(entry["class_id"])
        tar = self._tars.get(class_id, partial(FileReader, self._tar(class_id), advice=self._advice()))
        try:
            data = tar.read(start, end)
        except OSError as error:
            raise self.bad_tile(index, f"cannot be read: {error.strerror}") from error
        return self._unzipped(index, data) if data.startswith(_GZIP) else data

    def get_target(self, index: int) -> int:
        """The class index."""
        return int(self._entry(index)["class_index"])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return self.entries["class_index"].astype(np.int64)

    def digest(self) -> str:
        """SHA-256 over the entries, and the path, size and time of change of every tar."""
        digest = TileDigest()
        digest.add_array(self.entries)
        for class_id in self.class_ids:
            digest.add_file(self._tar(class_id))
        return digest.hexdigest()

    def order_digest(self) -> str:
        """SHA-256 over the entries and the sizes of up to `MOST_SIZES` tars."""
        digest, class_ids = TileDigest(), self.class_ids
        digest.add_array(self.entries)
        digest.add_sizes(lambda index: self._tar(class_ids[index]), len(class_ids))
        return digest.hexdigest()

    def locate(self, index: int) -> TilePlace:
        """The tar, the name and the bytes."""
        entry = self._entry(index)
        place = int(entry["start_offset"]) + BLOCK, int(entry["end_offset"])
        return TilePlace(str(self._tar(str(entry["class_id"]))), str(entry["filename"]), *place)

    def __len__(self) -> int:
        if self._length is None:
            self._check_tars()
            length = len(self.entries)
            self._maps.clear()  # until an image is read, no file stays open
            if not length:
                raise UserError(f"{self.extra / 'entries.npy'} names no images. {self._advice()}")
            self._length = length
        return self._length

    def _check_tars(self) -> None:
        """Refuse if a class has no tar; one look into the folder instead of one for each class."""
        if not self.root.is_dir():
            raise UserError(f"folder {self.root} of ImageNet-22k's tars does not exist")
        there = {path.name for path in self.root.iterdir()}
        missing = [class_id for class_id in self.class_ids if f"{class_id}.tar" not in there]
        if missing:
            raise UserError(f"folder {self.root} lacks the tars of {len(missing):,} classes, such as {missing[0]}.tar")

    def _entry(self, index: int) -> np.void:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)}")
        return self.entries[index]

    def _tar(self, class_id: str) -> Path:
        return self.root / f"{class_id}.tar"

    def _unzipped(self, index: int, data: bytes) -> bytes:
        """The image in a gzip stream, which may claim any size."""
        stream, most = zlib.decompressobj(_GZIP_WINDOW), largest_file(self.max_pixels)
        try:
            image = stream.decompress(data, most)
        except zlib.error as error:
            raise self.bad_tile(index, f"does not decompress: {error}") from error
        if not stream.eof:
            raise self.bad_tile(index, f"is cut off or decompresses to more than {most:,} bytes")
        return image

    def _advice(self) -> str:
        return (
            'The files in `extra` are made by: python -c "from dinov2.data.datasets import ImageNet22k; '
            f'ImageNet22k(root={str(self.root)!r}, extra={str(self.extra)!r}).dump_extra()"'
        )


def _entries(root: Path, class_ids: list[str]) -> np.ndarray:
    """A row with the fields of `ENTRY_FIELDS` for each image, (n,)."""
    names, classes, starts, ends = [], array("Q"), array("Q"), array("Q")
    for class_index, class_id in enumerate(class_ids):
        for chunk in Members(root / f"{class_id}.tar"):
            for place, path in enumerate(chunk.paths):
                if place in chunk.targets or not chunk.sizes[place] or chunk.hidden[place]:
                    continue  # a hard link, an empty file, or what a system keeps beside the images
                names.append(os.fsdecode(path))
                classes.append(class_index)
                starts.append(int(chunk.starts[place]) - BLOCK)
                ends.append(int(chunk.starts[place] + chunk.sizes[place]))
    logger.info(f"ImageNet-22k: {len(names):,} images of {len(class_ids):,} classes")
    ids = np.array(class_ids)
    filenames = np.array(names, dtype=str)
    types = ["<u4", ids.dtype, "<u8", "<u8", filenames.dtype]
    entries = np.empty(len(names), dtype=list(zip(ENTRY_FIELDS, types, strict=True)))
    entries["class_index"] = classes
    entries["class_id"] = ids[entries["class_index"]]
    entries["start_offset"], entries["end_offset"] = starts, ends
    entries["filename"] = filenames
    return entries
