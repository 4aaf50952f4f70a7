"""Random numbers as functions of what they are for, instead of as streams.

A seed is derived from a few integers (the run's seed, an epoch, a sample; or the run's seed, a step, a
rank), so that workers, prefetching and restarts cannot change what is drawn.
"""

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import numpy as np
import torch

_MASK = (1 << 64) - 1


class Draw(IntEnum):
    """What a derived seed is for; it follows the run's seed, so that no two purposes share random numbers."""

    ORDER = 0
    SAMPLE = 1
    REPLACEMENT = 2
    MASKS = 3
    STEP = 4


def derive_seed(*numbers: int) -> int:
    """Mix integers into one 63-bit seed (SplitMix64 after each, Steele et al. 2014)."""
    state = 0x9E3779B97F4A7C15
    for number in numbers:
        state = ((state ^ (number & _MASK)) + 0x9E3779B97F4A7C15) & _MASK
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & _MASK
        state ^= state >> 31
    return state >> 1


def seed_everything(seed: int) -> None:
    """Seed torch (all devices), NumPy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


def use_deterministic_kernels(enabled: bool) -> None:
    """Let a GPU add in the same order every time, or as it likes; to be called before the GPU is used.

    Where torch has no such kernel for an operation, a warning names it.
    """
    if enabled:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # which torch asks for
    torch.use_deterministic_algorithms(enabled, warn_only=True)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draw from a seed inside the block; outside it the CPU generators go on as if nothing happened."""
    states = torch.get_rng_state(), np.random.get_state(), random.getstate()
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(states[0])
        np.random.set_state(states[1])
        random.setstate(states[2])
