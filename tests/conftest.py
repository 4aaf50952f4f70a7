"""Shared fixtures: small data sets made on the spot, and one thread, since tests are small.

The whole suite runs in one process per core, if pytest-xdist is there; tests that are named, in one.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.models import vision_transformer

torch.set_num_threads(1)

MOST_PROCESSES = 4  # a gigabyte each


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Spread the whole suite over the cores, unless the command line says how."""
    option = config.option
    is_whole = config.args_source is not config.ArgsSource.ARGS and not (option.keyword or option.collectonly)
    is_free = "PYTEST_XDIST_WORKER" not in os.environ and option.capture != "no" and not option.usepdb
    if is_whole and is_free and getattr(option, "numprocesses", 0) is None and option.dist == "no":
        option.numprocesses = min(len(os.sched_getaffinity(0)), MOST_PROCESSES)
        option.dist = "worksteal"


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
