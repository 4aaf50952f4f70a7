"""Tiles in one tar, found through an index of byte ranges (see scripts/infer_entries.py)."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.data.tar_index import check_fingerprint, entries_name, load_entries
from dinov2.data.tar_reader import TarReader
from dinov2.errors import UserError

from .base import TileDataset, TileReadError

# Columns of the index.
CLASS, FILE, START, END = range(4)


class TarTileDataset(TileDataset):
    """Tiles of `tarball` at the byte ranges of an index, (n, 4) uint64: class, file, start, end."""

    def __init__(
        self,
        *,
        tarball: Path,
        extra: Path,
        name: str,
        subset: str | None = None,
        transform: Callable[..., Any] | None = None,
        target_transform: Callable[..., Any] | None = None,
    ) -> None:
        """Check the index extra/{name}_entries[_{subset}].npy against the tar.

        Raises:
            UserError: if a file is missing, the index is empty, or it belongs to another tar.
        """
        super().__init__(transform=transform, target_transform=target_transform)
        self.reader = TarReader(tarball)
        self.entries_file = extra / entries_name(name, subset)
        if not self.entries_file.is_file():
            suffix = f" --suffix {subset}" if subset else ""
            raise UserError(
                f"index {self.entries_file} does not exist. It is made with `python scripts/infer_entries.py "
                f"--tarball_path {tarball} --output_root {extra} --name {name}{suffix}`"
            )
        check_fingerprint(extra, name, tarball, suffix=subset)
        self._entries: np.ndarray | None = None
        self._length = len(load_entries(self.entries_file))
        if self._length == 0:
            raise UserError(f"index {self.entries_file} is empty: no tile of {tarball} was selected")

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as a copy of the whole index.
        return {**self.__dict__, "_entries": None}

    @property
    def entries(self) -> np.ndarray:
        """The index, (n, 4) uint64, memory-mapped."""
        if self._entries is None:
            self._entries = load_entries(self.entries_file)
        return self._entries

    def get_image_data(self, index: int) -> bytes:
        """The encoded image.

        Raises:
            TileReadError: if the tar has become shorter than its index says.
        """
        start, end = int(self.entries[index, START]), int(self.entries[index, END])
        data = self.reader.read(start, end)
        if len(data) != end - start:
            raise TileReadError(f"{self.describe(index)} is cut off: {len(data):,} of {end - start:,} bytes are there")
        return data

    def get_target(self, index: int) -> int:
        """The class index; 0 where the index was made without labels."""
        return int(self.entries[index, CLASS])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return np.asarray(self.entries[:, CLASS], dtype=np.int64)

    def describe(self, index: int) -> str:
        """Tile, tar and byte range."""
        _, file, start, end = (int(value) for value in self.entries[index, :4])
        return f"tile {index} (file {file}) of {self.reader.path} at bytes {start:,}-{end:,}"

    def __len__(self) -> int:
        return self._length


class PathologyDataset(TarTileDataset):
    """`Pathology:root=...:extra=...[:subset=...]`: unlabelled tiles of `pretrain_dataset.tar`."""

    def __init__(self, *, root: str, extra: str, subset: str | None = None, **transforms: Any) -> None:
        """Open root/pretrain_dataset.tar through extra/pretrain_entries[_{subset}].npy."""
        tarball = Path(root, "pretrain_dataset.tar")
        super().__init__(tarball=tarball, extra=Path(extra), name="pretrain", subset=subset, **transforms)
