"""Random blocks of patches to hide from the student.

Source: block-wise masking of Bao et al. 2022 (BEiT), algorithm 1, with DINOv2's constants; Sobol' 1967 for the
points that spread masks over a training stream.
"""

import math
import random
from dataclasses import dataclass

import numpy as np

from dinov2.utils.rng import Draw, derive_seed

_BITS = 64


class MaskingGenerator:
    """Draws boolean masks over a patch grid, block by block, from Python's `random`."""

    def __init__(
        self,
        input_size: int | tuple[int, int],
        num_masking_patches: int | None = None,
        min_num_patches: int = 4,
        max_num_patches: float | None = None,
        min_aspect: float = 0.3,
        max_aspect: float | None = None,
    ) -> None:
        """Store the grid and the limits of one block.

        Args:
            input_size: patches per side, or (rows, columns).
            max_num_patches: largest area of a block; `num_masking_patches` by default.
            min_aspect: smallest height over width; the largest is its inverse unless given.
        """
        self.height, self.width = (input_size, input_size) if isinstance(input_size, int) else input_size
        self.num_masking_patches = num_masking_patches
        self.min_num_patches = min_num_patches
        self.max_num_patches = num_masking_patches if max_num_patches is None else max_num_patches
        self.log_aspect_ratio = (math.log(min_aspect), math.log(max_aspect or 1 / min_aspect))

    def __repr__(self) -> str:
        return (
            f"MaskingGenerator({self.height}x{self.width}, blocks of {self.min_num_patches} to {self.max_num_patches} "
            f"patches, log aspect {self.log_aspect_ratio[0]:.3f} to {self.log_aspect_ratio[1]:.3f})"
        )

    def get_shape(self) -> tuple[int, int]:
        """Rows and columns of the grid."""
        return self.height, self.width

    def __call__(self, num_masking_patches: int = 0) -> np.ndarray:
        """A mask (rows, columns) bool with at most, and nearly always about, this many True."""
        mask = np.zeros(self.get_shape(), dtype=bool)
        count = 0
        while count < num_masking_patches:
            budget: float = num_masking_patches - count
            if self.max_num_patches is not None:
                budget = min(budget, self.max_num_patches)
            added = self._add_block(mask, budget)
            if added == 0:
                break
            count += added
        return mask

    def _add_block(self, mask: np.ndarray, budget: float) -> int:
        """Mask one more rectangle in at most 10 attempts; returns how many patches became masked."""
        for _ in range(10):
            area = random.uniform(self.min_num_patches, budget)
            aspect = math.exp(random.uniform(*self.log_aspect_ratio))
            rows, columns = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if rows >= self.height or columns >= self.width:
                continue
            top, left = random.randint(0, self.height - rows), random.randint(0, self.width - columns)
            block = mask[top : top + rows, left : left + columns]
            new = block.size - int(block.sum())
            if 0 < new <= budget:
                block[:] = True
                return new
        return 0


@dataclass(frozen=True)
class StreamMasks:
    """Masks of both global crops of a sample, as a function of its position in the training stream.

    DINOv2 masks a fixed share of the crops of a rank's batch and spreads the masked shares evenly over them, which
    ties a sample's masks to its neighbours. Here every position has a point of a two-dimensional Sobol' sequence, a
    coordinate for each crop: below `probability` the crop is masked, and the lower, the less of it. Consecutive
    positions spread over the square, so that a batch of any size has its share of masked crops and of all ratios: of
    2^k samples exactly, of others but for one or two crops.
    """

    generator: MaskingGenerator
    ratios: tuple[float, float]  # smallest and largest masked share of a masked crop
    probability: float  # share of the crops that get a mask
    seed: int

    def __call__(self, position: int) -> np.ndarray:
        """Masks (2, rows, columns) bool; the blocks come from Python's `random`."""
        return np.stack([self.generator(count) for count in self.counts(position)])

    def counts(self, position: int) -> list[int]:
        """How many patches of each crop to mask."""
        low, high = self.ratios
        rows, columns = self.generator.get_shape()
        shares = (
            (coordinate ^ derive_seed(self.seed, Draw.MASKS, crop) << 1) / 2**_BITS
            for crop, coordinate in enumerate(sobol_point(position))
        )
        return [
            int(rows * columns * (low + (high - low) * share / self.probability)) if share < self.probability else 0
            for share in shares
        ]


def sobol_point(number: int) -> tuple[int, int]:
    """A point of the two-dimensional Sobol' sequence, in units of 2^-64."""
    first = second = 0
    first_direction = second_direction = 1 << (_BITS - 1)
    while number:
        if number & 1:
            first ^= first_direction
            second ^= second_direction
        number >>= 1
        first_direction >>= 1
        second_direction ^= second_direction >> 1
    return first, second
