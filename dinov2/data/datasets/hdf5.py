"""Tiles in arrays of HDF5 files."""

import logging
import math
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image

from dinov2.data.decoding import ImageError, check_size
from dinov2.data.reading_now import reading
from dinov2.errors import UserError, unknown_name

from .base import TileDataset, TilePlace, TileReadError
from .class_labels import number_classes
from .digests import TileDigest
from .handles import Handles
from .stretches import Stretches

SHOWN = 5  # arrays named in a message
# Arrays of files that CLAM and TRIDENT write, and what these are.
_WITHOUT_PIXELS = {
    **dict.fromkeys(
        ("features", "feats"),
        "features of an encoder, as CLAM and TRIDENT write, which have no pixels to train on. Give the tiles that they "
        "were made of",
    ),
    "coords": "coordinates of tiles, as CLAM and TRIDENT write, without pixels. Cut the tiles from the slide at these "
    "places and give a folder of images, or an array of RGB tiles (n, H, W, 3) of uint8",
}

logger = logging.getLogger("dinov2")

# Bytes of decompressed chunks that HDF5 keeps, per file: at least its own default, and one chunk if that is not huge.
SAMPLES = 16  # tiles that stand for all of them in `order_digest`
_LEAST_CACHE, _MOST_CACHE = 1 << 20, 64 << 20


class HDF5Dataset(TileDataset):
    """`HDF5:file=TILES.h5[:file=...][:key=tile][:label=...]`: RGB tiles in arrays (n, H, W, 3) uint8.

    Every process opens the files for itself, to read only, and without file locks, which many network file systems do
    not have. A random tile is read fastest where each chunk of the array is one tile.

    Attributes:
        classes: the labels in order, whole numbers by value; a single empty one where there are no labels.
    """

    def __init__(
        self, *, file: str | Sequence[str], key: str = "tile", label: str | None = None, **options: Any
    ) -> None:
        """Check the files.

        Args:
            key: of the array of tiles, in each file.
            label: key of the class labels, (n,) whole numbers or texts, in each file.
            options: of `TileDataset`.
        Raises:
            UserError: if a file is missing or holds something else, or h5py is not installed.
        """
        super().__init__(**options)
        self.files = [Path(path) for path in ([file] if isinstance(file, str) else file)]
        self.key = key
        self._shapes: list[tuple[int, ...]] = []  # (n, H, W, 3) of each file
        self._cache_bytes: list[int] = []
        labels: list[str] = []
        for path in self.files:
            opened = _TileFile(path, key)
            try:
                self._shapes.append(opened.check(self.max_pixels))
                self._cache_bytes.append(opened.useful_cache())
                if label is not None:
                    labels += opened.labels(label)
            finally:
                opened.close()
        self._stretches = Stretches(shape[0] for shape in self._shapes)
        self._targets, self.classes = np.zeros(len(self), np.int64), [""]
        if label is not None:
            self._targets, self.classes = number_classes(labels)
        self._handles: Handles[_TileFile] = Handles()

    def get_image_data(self, index: int) -> bytes:
        """The pixels, row by row, without a header."""
        return self._pixels(index).tobytes()

    def get_image(self, index: int) -> Image.Image:
        """The tile in RGB."""
        return Image.fromarray(self._pixels(index))

    def get_target(self, index: int) -> int:
        """Number of the label in `classes`; 0 without labels."""
        return int(self._targets[index])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return self._targets

    def digest(self) -> str:
        """SHA-256 over the path, size and time of change of every file, and which array of it has the tiles."""
        digest = TileDigest(self.key)
        for path in self.files:
            digest.add_file(path)
        return digest.hexdigest()

    def order_digest(self) -> str:
        """SHA-256 over the shapes of the arrays and up to `SAMPLES` tiles, evenly spread; the rest is not read."""
        digest = TileDigest(*map(str, self._shapes))
        for index in range(0, len(self), -(-len(self) // SAMPLES)):
            try:
                digest.add_array(self._pixels(index))
            except TileReadError:
                digest.add_texts(["damaged"])
        self._handles.close()
        return digest.hexdigest()

    def locate(self, index: int) -> TilePlace:
        """The file, and the row of its array."""
        number, row = self._stretches.find(index)
        return TilePlace(str(self.files[number]), f"{self.key}[{row}]")

    def __len__(self) -> int:
        return len(self._stretches)

    def _pixels(self, index: int) -> np.ndarray:
        """(H, W, 3) uint8."""
        number, row = self._stretches.find(index)
        opened = self._handles.get(number, partial(self._open, number))
        try:
            with reading(self.locate(index)):
                return opened.tiles[row]
        except OSError as error:  # storage, checksums and decompression
            raise self.bad_tile(index, f"cannot be read: {error}") from error

    def _open(self, number: int) -> "_TileFile":
        path, expected = self.files[number], self._shapes[number]
        opened = _TileFile(path, self.key, cache_bytes=self._cache_bytes[number])
        if opened.tiles.shape != expected:
            found = opened.tiles.shape
            opened.close()
            raise UserError(f"{path} changed while it was in use: {self.key} had the shape {expected}, now {found}")
        return opened


class _TileFile:
    """An open file and its array of tiles."""

    def __init__(self, path: Path, key: str, *, cache_bytes: int = _LEAST_CACHE) -> None:
        if not path.is_file():
            raise UserError(f"HDF5 file {path} does not exist")
        self.path = path
        try:
            self.file = _h5py().File(path, "r", locking=False, rdcc_nbytes=cache_bytes)
        except OSError as error:
            raise UserError(f"{path} cannot be opened as an HDF5 file: {error}") from error
        self.tiles = self._array(key, of_tiles=True)

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def check(self, max_pixels: int) -> tuple[int, ...]:
        """The shape (n, H, W, 3) of the tiles, if they are what they have to be."""
        shape, dtype = self.tiles.shape, self.tiles.dtype
        if dtype != np.uint8 or len(shape) != 4 or shape[-1] != 3 or 0 in shape:
            hint = " Channels seem to come first: store array.transpose(0, 2, 3, 1)." if shape[1:2] == (3,) else ""
            hint += "" if dtype == np.uint8 else " Scale all tiles alike, so that white is 255."
            raise UserError(
                f"{self.tiles.name} of {self.path}: expected RGB tiles of shape (n, height, width, 3) and type uint8, "
                f"got {shape} and {dtype}.{hint}"
            )
        try:
            check_size(shape[2], shape[1], max_pixels)
        except ImageError as error:
            raise UserError(f"a tile of {self.tiles.name} of {self.path} cannot be used: {error}") from error
        return shape

    def useful_cache(self) -> int:
        """Bytes that let neighbouring tiles be read without decompressing their chunk again."""
        chunk = self.tiles.chunks or (1,)
        if chunk[0] > 1:
            height, width = self.tiles.shape[1:3]
            logger.warning(
                f"{self.path}: a chunk of {self.tiles.name} holds {chunk[0]} tiles, all of which are read for a random "
                f"one; stored with chunks=(1, {height}, {width}, 3) it would be read faster"
            )
        return min(max(math.prod(chunk), _LEAST_CACHE), _MOST_CACHE)

    def labels(self, key: str) -> list[str]:
        """The label of each tile."""
        array = self._array(key)
        is_integer, is_text = array.dtype.kind in "iu", _h5py().check_string_dtype(array.dtype)
        if array.shape != self.tiles.shape[:1] or not (is_integer or is_text):
            raise UserError(
                f"{array.name} of {self.path}: expected a label for each of {len(self.tiles):,} tiles, whole numbers "
                f"or texts, got shape {array.shape} and type {array.dtype}"
            )
        return array[:].astype(str).tolist() if is_integer else array.asstr()[:].tolist()

    def _array(self, key: str, *, of_tiles: bool = False) -> Any:
        found = self.file.get(key)
        if not isinstance(found, _h5py().Dataset):
            error = self._without_tiles(key) if of_tiles else unknown_name(f"array of {self.path}", key, self.file)
            self.close()
            raise error
        return found

    def _without_tiles(self, key: str) -> UserError:
        """What the file has instead of an array, and what to do."""
        arrays: dict[str, Any] = {}
        self.file.visititems(lambda name, item: arrays.update({name: item}) if hasattr(item, "dtype") else None)
        shapes = ", ".join(f"{name} {item.shape} {item.dtype}" for name, item in [*arrays.items()][:SHOWN])
        found = f"{self.path} has no array {key!r}, but {shapes or 'nothing'}"
        tiles = [name for name, item in arrays.items() if item.dtype == np.uint8 and item.shape[3:] == (3,)]
        if tiles:
            return UserError(
                f"{found}. Tiles may be in {tiles[0]!r}: give train.dataset_path=HDF5:file={self.path}:key={tiles[0]}, "
                "instead of --input-dir if that was given"
            )
        kinds = [words for name, words in _WITHOUT_PIXELS.items() if name in arrays]
        return UserError(f"{found}: {kinds[0]}") if kinds else unknown_name(f"array of {self.path}", key, arrays)


def _h5py() -> ModuleType:
    try:
        import h5py
    except ImportError as error:
        raise UserError("data set HDF5 needs h5py, which is not installed: pip install h5py") from error
    return h5py
