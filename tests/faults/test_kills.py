"""Trainings killed at random times (SIGKILL) end bit for bit as the undisturbed one."""

import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pytest
from crashes import kill_at_random, outcome, run, training

JOBS = 2  # trials at a time


@pytest.fixture
def undisturbed(image_folder, tmp_path):
    """(outcome, seconds) of the training that nobody kills."""
    started = time.monotonic()
    assert run(training(image_folder, tmp_path / "whole"), tmp_path / "logs") == [0]
    return outcome(tmp_path / "whole"), time.monotonic() - started


def trial(images: Path, folder: Path, longest: float, kills: int, seed: int) -> tuple:
    """One training with kills; every other one saves in the background."""
    folder = folder / str(seed)
    options = training(images, folder / "run", f"train.async_checkpoint={str(seed % 2 == 0).lower()}")
    killed = kill_at_random(options, folder, seed=seed, kills=kills, longest=longest)
    found = outcome(folder / "run")
    leftovers = [path.name for path in (folder / "run" / "checkpoints").iterdir() if path.name.startswith(".")]
    shutil.rmtree(folder)
    return killed, found, leftovers


def run_trials(images: Path, folder: Path, undisturbed: tuple, *, trials: int, kills: int = 3) -> int:
    """Run trials, print how they went, and return the number of kills."""
    expected, seconds = undisturbed
    start = int.from_bytes(os.urandom(3), "little")
    with ProcessPoolExecutor(JOBS, mp_context=get_context("fork")) as pool:
        results = list(pool.map(partial(trial, images, folder, seconds, kills), range(start, start + trials)))
    killed = sum(result[0] for result in results)
    exact = sum(result[1] == expected for result in results)
    print(f"\nrandom SIGKILL: {trials} trials, {killed} kills, {exact} bit-exact (seeds from {start})")
    for number, (_, found, leftovers) in enumerate(results, start=start):
        assert found == expected, f"trial {number}"
        assert leftovers == [], f"trial {number}"
    return killed


def test_random_kills(image_folder, tmp_path, undisturbed):
    assert undisturbed[0].iterations == tuple(range(12))
    assert run_trials(image_folder, tmp_path / "trials", undisturbed, trials=40) >= 40


@pytest.mark.slow  # 8 minutes
def test_many_random_kills(image_folder, tmp_path, undisturbed):
    assert run_trials(image_folder, tmp_path / "trials", undisturbed, trials=130) >= 200
