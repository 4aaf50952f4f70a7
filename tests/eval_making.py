"""Features and images by rule, for tests of the evaluation."""

from pathlib import Path

import numpy as np
import torch
from golden import normal
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from dinov2.eval.features import Features

# A ViT-Ti on images of 28 px, for command lines.
TINY = [
    "student.arch=vit_tiny",
    "student.patch_size=14",
    "crops.global_crops_size=28",
    "crops.local_crops_size=14",
    "student.layerscale=1.0",
]


def clusters(
    tag: str, samples: int, *, classes: int = 3, width: int = 8, noise: float = 1.0, groups: int = 0
) -> Features:
    """Samples around a centre for each class, the classes in turn; groups are runs of samples."""
    labels = torch.arange(samples) % classes
    values = normal("centres", (classes, width))[labels] + noise * normal(tag, (samples, width))
    return Features(values, labels, torch.arange(samples) * groups // samples if groups else None)


def unit(tag: str, rows: int, width: int = 6) -> Tensor:
    """Random directions (rows, width)."""
    return torch.nn.functional.normalize(normal(tag, (rows, width)), dim=1)


class NoiseImages(Dataset):
    """Images (3, 28, 28) by rule and labels 0, 1, 2 in turn."""

    def __init__(self, samples: int) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return self.samples

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return normal(f"image{index}", (3, 28, 28)), index % 3


def write_tiles(root: Path, *, classes: int = 2, slides: int = 4, tiles: int = 3, prefix: str = "slide") -> Path:
    """Images of 32 px as root/c{class}/{prefix}{number}_{tile}.png, each class a little brighter in another channel."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        folder = root / f"c{label}"
        folder.mkdir(parents=True)
        for slide in range(slides):
            for tile in range(tiles):
                pixels = rng.integers(0, 128, (32, 32, 3), dtype=np.uint8)
                pixels[..., label] += 15
                Image.fromarray(pixels).save(folder / f"{prefix}{label}{slide}_{tile}.png")
    return root
