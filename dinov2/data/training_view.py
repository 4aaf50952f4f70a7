"""A data set as an endless, shuffled, reproducible stream.

Position p of the stream is sample `p % n` of the order of epoch `p // n`. The order is a function of (seed,
epoch), and crops and colours are a function of (seed, epoch, sample), so the state of the whole data
pipeline is one integer: how many positions were consumed.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from dinov2.utils.rng import derive_seed, seeded

from .permutation import Permutation

# What a derived seed is for, so that no two purposes share random numbers.
_ORDER, _SAMPLE, _MASKS = range(3)


class TrainingView(Dataset):
    """Samples of a data set by position in the stream."""

    def __init__(self, dataset: Dataset, *, seed: int) -> None:
        """Wrap a data set of n samples; its transform must draw from the global generators only."""
        self.dataset = dataset
        self.seed = seed
        self.size = len(dataset)  # type: ignore[arg-type]
        self._order: tuple[int, Permutation] | None = None

    def __getitem__(self, position: int) -> tuple[Any, int]:
        """The transformed sample at a position, and the position."""
        epoch, index = self.locate(position)
        with seeded(derive_seed(self.seed, _SAMPLE, epoch, index)):
            return self.dataset[index][0], position

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, index in the data set) of a position."""
        epoch, offset = divmod(position, self.size)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, Permutation(self.size, self.seed, _ORDER, epoch))
        return epoch, int(self._order[1](np.array([offset]))[0])


class SeededCollate:
    """Collation whose masks are a function of the seed and the positions in the batch."""

    def __init__(self, collate: Callable[[Sequence[Any]], Any], *, seed: int) -> None:
        self.collate = collate
        self.seed = seed

    def __call__(self, samples: Sequence[tuple[Any, int]]) -> Any:
        """Collate samples of a `TrainingView`."""
        with seeded(derive_seed(self.seed, _MASKS, samples[0][1])):
            return self.collate(samples)
