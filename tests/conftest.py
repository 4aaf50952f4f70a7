"""Shared fixtures: small data sets made on the spot, and one thread, since tests are small."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.models import vision_transformer

torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def vit_mini() -> Iterator[None]:
    """A transformer of two narrow blocks, so that several ranks take a step in a fraction of a second."""

    def build(patch_size=16, num_register_tokens=0, **kwargs):
        return vision_transformer._vit(48, 2, 2, patch_size, num_register_tokens, kwargs)

    # Not by the fixture `monkeypatch`, which tests undo.
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(vision_transformer.ARCHITECTURES, "vit_mini", build)
        yield


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
