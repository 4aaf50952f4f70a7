"""Where ImageNet-1k keeps its images, and DINOv2's `.npy` files about them, made from the folders as they are."""

import csv
import logging
import re
from enum import Enum
from pathlib import Path

import numpy as np

from dinov2.errors import UserError

from .folder_walk import class_of, list_images
from .npy_tables import save_array
from .problems import Problems

logger = logging.getLogger("dinov2")

# What a row of entries-{split}.npy has, and the kinds of it: numbers and texts.
ENTRY_FIELDS = {"actual_index": "u", "class_index": "u", "class_id": "U", "class_name": "U"}
_UNKNOWN = np.iinfo(np.uint32).max  # the class index of a test image
_NUMBER = re.compile(r"(\d+)\.JPEG")


class ImageNetSplit(Enum):
    """The parts of ImageNet-1k, with their folders as values."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"

    @property
    def length(self) -> int:
        """Images in the published split."""
        return {"train": 1_281_167, "val": 50_000, "test": 100_000}[self.value]

    def relative_path(self, actual_index: int, class_id: str) -> str:
        """Path of an image below the folder of the split, by its number and its class's WordNet id (not for TEST)."""
        if self is ImageNetSplit.TRAIN:
            return f"{class_id}/{class_id}_{actual_index}.JPEG"
        name = f"ILSVRC2012_{self.value}_{actual_index:08d}.JPEG"
        return f"{class_id}/{name}" if self is ImageNetSplit.VAL else name


def dump_image_net(split: ImageNetSplit, *, root: Path, extra: Path) -> None:
    """Write entries-{split}.npy and, but for TEST, class-ids-{split}.npy and class-names-{split}.npy.

    Raises:
        UserError: if the folders are not laid out like ImageNet's, or labels.txt lacks a class.
    """
    folder = root / split.value
    if not folder.is_dir():
        raise UserError(f"folder {folder} of ImageNet's images does not exist")
    names = list_images(folder)
    numbers = _numbers(split, names, folder)
    class_ids = [] if split is ImageNetSplit.TEST else sorted({class_of(name) for name in names})
    class_names = _class_names(root / "labels.txt", class_ids) if class_ids else []
    extra.mkdir(parents=True, exist_ok=True)
    save_array(extra / f"entries-{split.name}.npy", _entries(names, numbers, class_ids, class_names))
    if class_ids:
        save_array(extra / f"class-ids-{split.name}.npy", np.array(class_ids))
        save_array(extra / f"class-names-{split.name}.npy", np.array(class_names))
    logger.info(f"ImageNet {split.name}: {len(names):,} images of {len(class_ids):,} classes")


def _numbers(split: ImageNetSplit, names: list[str], folder: Path) -> list[int]:
    """The number in each image's name."""
    numbers, problems = [], Problems()
    for name in names:
        found = _NUMBER.search(name)
        number = int(found[1]) if found else 0
        if split.relative_path(number, class_of(name)) != name:
            problems.add(f"{name} is no image of {split.name}, such as {split.relative_path(18, 'n01440764')}")
        numbers.append(number)
    problems.refuse(f"folder {folder} is not laid out like ImageNet's")
    if not names:
        raise UserError(f"folder {folder} holds no images, such as {split.relative_path(18, 'n01440764')}")
    return numbers


def _class_names(path: Path, class_ids: list[str]) -> list[str]:
    """The names of classes in a file of rows id,name."""
    try:
        with path.open(newline="", encoding="utf-8") as lines:
            rows = list(csv.reader(lines))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}, a table of WordNet ids and class names, cannot be read: {error}") from error
    problems = Problems()
    for number, row in enumerate(rows, start=1):
        if len(row) != 2:
            problems.add(f"row {number}: expected an id and a name, got {len(row)} cells")
    problems.refuse(f"{path} cannot be used")
    names = dict(rows)
    missing = [class_id for class_id in class_ids if class_id not in names]
    if missing:
        raise UserError(f"{path} has no name for {len(missing)} of {len(class_ids)} classes, such as {missing[0]}")
    return [names[class_id] for class_id in class_ids]


def _entries(names: list[str], numbers: list[int], class_ids: list[str], class_names: list[str]) -> np.ndarray:
    """A row with the fields of `ENTRY_FIELDS` for each image, (n,)."""
    ids, titles = np.array(class_ids or [""]), np.array(class_names or [""])
    places = {class_id: place for place, class_id in enumerate(class_ids)}
    classes = np.array([places.get(class_of(name), 0) for name in names])
    types = ["<u4", "<u4", ids.dtype, titles.dtype]
    entries = np.empty(len(names), dtype=list(zip(ENTRY_FIELDS, types, strict=True)))
    entries["actual_index"] = numbers
    entries["class_index"] = classes if class_ids else _UNKNOWN
    entries["class_id"], entries["class_name"] = ids[classes], titles[classes]
    return entries
