"""Damage to the files of a checkpoint of two ranks: always found, named, and the checkpoint before it used."""

import os
import random
from pathlib import Path

import pytest
from crashes import STEPS, run, training

from dinov2.errors import UserError
from dinov2.train.checkpoint import Checkpointer, DamagedError, SavedCheckpoint

FILES = ("manifest.json", "rank-00000.safetensors", "rank-00001.safetensors", "state.json")
KEPT = (0.0, 0.1, 0.5, 0.9, 0.999)  # share of a file that is left


@pytest.fixture
def checkpoints(image_folder, tmp_path) -> Path:
    """The checkpoints of a training of two ranks, after 10 and 12 steps."""
    options = ("train.num_workers=0", "train.batch_size_per_gpu=2", "evaluation.eval_period_iterations=0")
    assert run(training(image_folder, tmp_path / "run", *options), tmp_path, ranks=2) == [0, 0]
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in newest(folder).iterdir()) == list(FILES)
    return folder


def newest(folder: Path) -> Path:
    return folder / f"step-{STEPS:07d}"


def assert_found(folder: Path, file: str) -> None:
    """The damaged file is named, and the run goes on from the checkpoint before."""
    with pytest.raises(DamagedError, match=f"step-{STEPS:07d} cannot be used: .*{file}"):
        SavedCheckpoint(newest(folder), STEPS)
    saved = Checkpointer(folder).load_newest()
    assert saved is not None
    assert saved.values["iteration"] == STEPS - 2


def test_truncated_deleted_and_swapped(checkpoints):
    for file in FILES:
        path = newest(checkpoints) / file
        content, other = path.read_bytes(), (checkpoints / f"step-{STEPS - 2:07d}" / file).read_bytes()
        for kept in KEPT:
            path.write_bytes(content[: min(int(kept * len(content)), len(content) - 1)])
            assert_found(checkpoints, file)
        path.unlink()
        assert_found(checkpoints, file)
        path.write_bytes(other)
        # A manifest of another step is found by its step.
        assert_found(checkpoints, "holds step 10, not step 12" if file == "manifest.json" else file)
        path.write_bytes(content)
    assert Checkpointer(checkpoints).load_newest().values["iteration"] == STEPS
    print(f"\n{len(FILES)} files truncated at {len(KEPT)} places, deleted, and swapped: all found and named")

    exchange(newest(checkpoints), checkpoints / f"step-{STEPS - 2:07d}")
    with pytest.raises(UserError, match="(?s)it holds step 10, not step 12.*it holds step 12, not step 10"):
        Checkpointer(checkpoints).load_newest()


def exchange(first: Path, second: Path) -> None:
    first.rename(first.with_name("aside"))
    second.rename(first)
    first.with_name("aside").rename(second)


def test_flipped_bits(checkpoints):
    seed = int.from_bytes(os.urandom(3), "little")
    rng, found, flips = random.Random(seed), 0, 200
    for _ in range(flips):
        path = newest(checkpoints) / rng.choice(FILES)
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(damaged)
        found += Checkpointer(checkpoints).load_newest().values["iteration"] == STEPS - 2
        path.write_bytes(content)
    print(f"\n{flips} single flipped bits: {found} found (seed {seed})")
    assert found == flips
