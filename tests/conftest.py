"""Shared fixtures: small data sets made on the spot, and one thread, since tests are small."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

torch.set_num_threads(1)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """24 noise JPEGs of 64 px in two class folders."""
    rng = np.random.default_rng(0)
    root = tmp_path / "images"
    for label in ("a", "b"):
        (root / label).mkdir(parents=True)
        for number in range(12):
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / label / f"{label}{number:02d}.jpg")
    return root
