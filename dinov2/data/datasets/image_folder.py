"""Images in a folder, with the first level of subfolders as classes if there are any."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.errors import UserError

from .base import TileDataset

IMAGE_EXTENSIONS = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp")


class ImageFolderDataset(TileDataset):
    """`ImageFolder:root=...`: all images below a folder, sorted by path."""

    def __init__(self, *, root: str, **transforms: Any) -> None:
        """List the images.

        Raises:
            UserError: if the folder is missing or has no images.
        """
        super().__init__(**transforms)
        self.root = Path(root)
        if not self.root.is_dir():
            raise UserError(f"folder {self.root} does not exist")
        self.names = list_images(self.root)
        if not self.names:
            raise UserError(f"folder {self.root} holds no images ({', '.join(IMAGE_EXTENSIONS)})")
        self.classes = sorted({class_of(name) for name in self.names})
        numbers = {name: number for number, name in enumerate(self.classes)}
        self._targets = np.array([numbers[class_of(name)] for name in self.names], dtype=np.int64)

    def get_image_data(self, index: int) -> bytes:
        """The encoded image."""
        return (self.root / self.names[index]).read_bytes()

    def get_target(self, index: int) -> int:
        """Number of the subfolder in alphabetical order; 0 for images directly in the root."""
        return int(self._targets[index])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return self._targets

    def describe(self, index: int) -> str:
        """The image's path."""
        return f"image {self.root / self.names[index]}"

    def __len__(self) -> int:
        return len(self.names)


def list_images(root: Path) -> list[str]:
    """Paths of all images below a folder, relative to it, sorted; hidden files and folders are left out."""
    found = (
        Path(folder, name).relative_to(root)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.lower().endswith(IMAGE_EXTENSIONS)
    )
    return sorted(path.as_posix() for path in found if not any(part.startswith(".") for part in path.parts))


def class_of(name: str) -> str:
    """The first folder of a relative path; empty where there is none."""
    parts = Path(name).parts
    return parts[0] if len(parts) > 1 else ""
