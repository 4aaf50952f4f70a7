"""Trainings killed at random times (SIGKILL) end bit for bit as the undisturbed one."""

import os
import shutil
from functools import partial
from pathlib import Path

import pytest
from crashes import STEPS, Outcome, in_parallel, kill_at_random, outcome, run, training


@pytest.fixture
def undisturbed(image_folder, tmp_path) -> Outcome:
    """What the training leaves that nobody kills."""
    assert run(training(image_folder, tmp_path / "whole"), tmp_path / "logs") == [0]
    found = outcome(tmp_path / "whole")
    assert found.iterations == tuple(range(STEPS))
    return found


def trial(images: Path, folder: Path, seed: int) -> tuple[int, Outcome, list[str]]:
    """One training with two or three kills; every other one saves in the background."""
    output = folder / str(seed)
    options = training(images, output, f"train.async_checkpoint={str(seed % 2 == 0).lower()}")
    killed = kill_at_random(options, output, folder / f"{seed}.logs", seed=seed, kills=2 + seed // 2 % 2)
    found = outcome(output)
    leftovers = [path.name for path in (output / "checkpoints").glob(".*")]
    shutil.rmtree(output)
    return killed, found, leftovers


def run_trials(images: Path, folder: Path, expected: Outcome, trials: int) -> int:
    """Run trials, print how they went, and return the number of kills."""
    first = int.from_bytes(os.urandom(3), "little")
    results = in_parallel(partial(trial, images, folder), range(first, first + trials))
    killed = sum(result[0] for result in results)
    exact = sum(result[1] == expected for result in results)
    print(f"\nrandom SIGKILL: {trials} trials, {killed} kills, {exact} bit-exact (seeds from {first})")
    for seed, (_, found, leftovers) in enumerate(results, start=first):
        assert found == expected, f"seed {seed}"
        assert leftovers == [], f"seed {seed}"
    return killed


@pytest.mark.parametrize(
    "trials",
    [
        pytest.param(40, marks=pytest.mark.thorough),  # 2 minutes on idle cores
        pytest.param(100, marks=pytest.mark.slow),  # 5 minutes
    ],
)
def test_random_kills(image_folder, tmp_path, undisturbed, trials):
    assert run_trials(image_folder, tmp_path / "trials", undisturbed, trials) >= 2 * trials
