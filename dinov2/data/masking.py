"""Random blocks of patches to hide from the student.

Source: block-wise masking of Bao et al. 2022 (BEiT), algorithm 1, with DINOv2's constants.
"""

import math
import random

import numpy as np


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
