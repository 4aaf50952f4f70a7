"""ImageNet-1k in its usual folders, found through DINOv2's `.npy` files.

`extra` holds, for each split, entries-{split}.npy: a row (actual_index, class_index, class_id, class_name) for each
image, and class-ids-{split}.npy and class-names-{split}.npy, which `ImageNet.dump_extra` makes.
"""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.errors import UserError, unknown_name

from .file_tiles import FileTileDataset
from .image_net_extra import ENTRY_FIELDS, ImageNetSplit, dump_image_net
from .npy_tables import load_texts, map_table

logger = logging.getLogger("dinov2")

NO_CLASS = -1  # of test images, whose classes were never published


class ImageNet(FileTileDataset):
    """`ImageNet:split=TRAIN|VAL|TEST:root=...:extra=...`: the images in the order of their entries.

    Nothing is read before the length, a class or an image is asked for, so that `dump_extra` can make the files.
    """

    Split = ImageNetSplit

    def __init__(
        self, *, split: str | ImageNetSplit, root: str, extra: str, check_length: bool = False, **options: Any
    ) -> None:
        """Store where things are.

        Args:
            root: has the folders train/, val/, test/, and labels.txt.
            extra: has, or gets, the `.npy` files.
            check_length: refuse a split of another length than the published one, instead of logging it. Subsets are
                in wide use, so they are accepted.
            options: of `TileDataset`.
        """
        super().__init__(**options)
        if isinstance(split, str):
            if split not in ImageNetSplit.__members__:
                raise unknown_name("split of data set ImageNet", split, ImageNetSplit.__members__)
            split = ImageNetSplit[split]
        self.split, self.root, self.extra = split, Path(root), Path(extra)
        self.check_length = check_length
        self._length: int | None = None
        self._maps: dict[str, Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_maps": {}}  # a memory map would be pickled as a copy of all entries

    def dump_extra(self) -> None:
        """Make the `.npy` files from the folders and labels.txt."""
        dump_image_net(self.split, root=self.root, extra=self.extra)

    @property
    def entries(self) -> np.ndarray:
        """(n,) rows with the fields of `ENTRY_FIELDS`, memory-mapped."""
        if "entries" not in self._maps:
            path = self.extra / f"entries-{self.split.name}.npy"
            self._maps["entries"] = map_table(path, fields=ENTRY_FIELDS, advice=self._advice())
        return self._maps["entries"]

    @property
    def class_ids(self) -> list[str]:
        """WordNet ids by class index."""
        return self._texts("class-ids")

    @property
    def class_names(self) -> list[str]:
        """Names by class index."""
        return self._texts("class-names")

    def find_class_id(self, class_index: int) -> str:
        """WordNet id of a class."""
        return self.class_ids[class_index]

    def find_class_name(self, class_index: int) -> str:
        """Name of a class."""
        return self.class_names[class_index]

    def get_class_id(self, index: int) -> str | None:
        """WordNet id of an image's class; None for TEST."""
        return None if self.split is ImageNetSplit.TEST else str(self._entry(index)["class_id"])

    def get_class_name(self, index: int) -> str | None:
        """Name of an image's class; None for TEST."""
        return None if self.split is ImageNetSplit.TEST else str(self._entry(index)["class_name"])

    def path_of(self, index: int) -> Path:
        """The image's path."""
        entry = self._entry(index)
        name = self.split.relative_path(int(entry["actual_index"]), str(entry["class_id"]))
        return self.root / self.split.value / name

    def name_arrays(self) -> Iterable[np.ndarray]:
        """The entries."""
        return [self.entries]

    def get_target(self, index: int) -> int:
        """The class index; -1 for TEST."""
        entry = self._entry(index)
        return NO_CLASS if self.split is ImageNetSplit.TEST else int(entry["class_index"])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64; -1 for TEST."""
        if self.split is ImageNetSplit.TEST:
            return np.full(len(self), NO_CLASS, dtype=np.int64)
        return self.entries["class_index"].astype(np.int64)

    def __len__(self) -> int:
        if self._length is None:
            self._length = self._checked_length()
        return self._length

    def _checked_length(self) -> int:
        folder = self.root / self.split.value
        if not folder.is_dir():
            raise UserError(f"folder {folder} of ImageNet's images does not exist; root=... names the folder above it")
        length = len(self.entries)
        self._maps.clear()  # until an image is read, no file stays open
        if length != self.split.length:
            message = f"ImageNet {self.split.name} has {self.split.length:,} images, {self.extra} names {length:,}"
            if self.check_length or not length:
                raise UserError(f"{message}. {self._advice()}")
            logger.warning(message)
        return length

    def _entry(self, index: int) -> np.void:
        if not 0 <= index < len(self):
            raise IndexError(f"index {index} of {len(self)}")
        return self.entries[index]

    def _texts(self, name: str) -> list[str]:
        if self.split is ImageNetSplit.TEST:
            raise UserError("the classes of ImageNet's TEST images were never published")
        if name not in self._maps:
            self._maps[name] = load_texts(self.extra / f"{name}-{self.split.name}.npy", advice=self._advice())
        return self._maps[name]

    def _advice(self) -> str:
        return (
            'The files in `extra` are made by: python -c "from dinov2.data.datasets import ImageNet; '
            f'ImageNet(split={self.split.name!r}, root={str(self.root)!r}, extra={str(self.extra)!r}).dump_extra()"'
        )
