"""A random order of n items, computed one position at a time.

Source: a balanced-as-possible Feistel network (Luby & Rackoff 1988) over the next power of two, with cycle
walking (Black & Rogaway 2002) to stay below n. Shuffling a billion tiles takes no memory and no start-up
time, and every worker and rank can compute the part it needs.
"""

from typing import TypeVar

import numpy as np

from dinov2.utils.rng import derive_seed

_Words = TypeVar("_Words", int, np.ndarray)  # both compute modulo 2^64, ints with the help of `_WORD`

_ROUNDS = 6
_MIN_BITS = 8  # smaller networks mix poorly; walking from 256 down to a handful of items costs nothing
_WORD = (1 << 64) - 1


class Permutation:
    """A bijection of 0 .. size-1 chosen by a key."""

    def __init__(self, size: int, *key: int) -> None:
        """Prepare the order of `size` items for a key of integers, such as (seed, epoch)."""
        if size < 1:
            raise ValueError(f"a permutation needs at least one item, got {size}")
        self.size = size
        bits = max((size - 1).bit_length(), _MIN_BITS)
        self._low_bits, self._high_bits = bits // 2, bits - bits // 2
        self._round_keys = [derive_seed(size, *key, number) for number in range(_ROUNDS)]

    def __call__(self, positions: np.ndarray) -> np.ndarray:
        """Items (n,) int64 at positions (n,) of the order.

        Raises:
            ValueError: for a position outside 0 .. size-1.
        """
        positions = np.asarray(positions, dtype=np.int64)
        if positions.size and not 0 <= positions.min() <= positions.max() < self.size:
            raise ValueError(f"positions must lie in 0 .. {self.size - 1}")
        items = self._encrypt(positions.astype(np.uint64))
        outside = np.flatnonzero(items >= self.size)
        while outside.size:
            items[outside] = self._encrypt(items[outside])
            outside = outside[items[outside] >= self.size]
        return items.astype(np.int64)

    def item(self, position: int) -> int:
        """The item at one position, twenty times faster than through an array of one.

        Raises:
            ValueError: for a position outside 0 .. size-1.
        """
        if not 0 <= position < self.size:
            raise ValueError(f"positions must lie in 0 .. {self.size - 1}")
        item = self._encrypt(position)
        while item >= self.size:
            item = self._encrypt(item)
        return item

    def _encrypt(self, values: _Words) -> _Words:
        """One pass of the network over values below 2^bits: one int, or (n,) uint64."""
        low_bits, high_bits = self._low_bits, self._high_bits
        for key in self._round_keys:
            high = values >> low_bits
            low = values & ((1 << low_bits) - 1)
            # The halves change places, and so do their widths.
            mixed = (high ^ _hash(low, key)) & ((1 << high_bits) - 1)
            values = (low << high_bits) | mixed
            low_bits, high_bits = high_bits, low_bits
        return values


def whole_order(size: int, *key: int) -> np.ndarray:
    """All items 0 .. size-1 in an order chosen by a key of integers, (size,) int64: their hashes, sorted.

    For few items, among which the smallest network of a `Permutation` would walk long, or where all are wanted anyway.
    """
    return np.argsort(_hash(np.arange(size, dtype=np.uint64), derive_seed(size, *key)), kind="stable")


def _hash(values: _Words, key: int) -> _Words:
    """SplitMix64's finaliser of values under a key: one int, or (n,) uint64."""
    values = (values + key) * 0xBF58476D1CE4E5B9 & _WORD
    values = (values ^ (values >> 29)) * 0x94D049BB133111EB & _WORD
    return values ^ (values >> 32)
