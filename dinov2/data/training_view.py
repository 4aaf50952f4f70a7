"""A data set as an endless, shuffled, reproducible stream.

Position p of the stream is sample `p % n` of the order of epoch `p // n`. The order is a function of (seed,
epoch), and crops, colours and masks are a function of (seed, position), which is to say of (seed, epoch, sample).
So the state of the whole data pipeline is one integer: how many positions were consumed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from dinov2.utils.rng import Draw, derive_seed, seeded

from .collate import Batch, assemble_batch, mask_upperbound
from .datasets import TileDataset, TilePlace, TileReadError
from .masking import StreamMasks
from .permutation import Permutation
from .quarantine import BadTile

MAX_REPLACEMENTS = 100  # tiles tried in place of a bad one; only an archive that is bad as a whole needs more


class Order(Protocol):
    """The samples of an epoch by position."""

    def item(self, position: int) -> int:
        """The sample at a position of the epoch."""


@dataclass(frozen=True)
class TrainingSample:
    """What a position of the stream gives."""

    crops: Any  # what the data set's transform returns
    masks: np.ndarray  # (2, rows, columns) bool, of the global crops
    position: int
    tile: int  # its index in the data set
    bad_tiles: tuple[BadTile, ...]  # those it took the place of


class TrainingBatch(Batch):
    """A batch that knows where it comes from."""

    positions: Tensor  # (B,) int64, in the stream
    tiles: Tensor  # (B,) int64, in the data set
    bad_tiles: list[BadTile]  # met while it was read


class TrainingView(Dataset):
    """Samples of a data set by position in the stream."""

    def __init__(
        self,
        dataset: TileDataset,
        *,
        seed: int,
        masks: StreamMasks,
        order: Callable[[int], Order] | None = None,
    ) -> None:
        """Wrap a data set of n samples; its transform must draw from the global generators only.

        Args:
            order: of an epoch; by default every sample once, shuffled by (seed, epoch).
        """
        self.dataset = dataset
        self.seed = seed
        self.masks = masks
        self.size = len(dataset)
        self.order = order or partial(Permutation, self.size, seed, Draw.ORDER)
        self._current: tuple[int, Order] | None = None

    def __getitem__(self, position: int) -> TrainingSample:
        """The transformed sample at a position."""
        _, index = self.locate(position)
        with seeded(derive_seed(self.seed, Draw.SAMPLE, position)):
            masks = self.masks(position)
            crops, tile, bad_tiles = self._read(position, index)
            return TrainingSample(crops, masks, position, tile, bad_tiles)

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, index in the data set) of a position."""
        epoch, offset = divmod(position, self.size)
        if self._current is None or self._current[0] != epoch:
            self._current = (epoch, self.order(epoch))
        return epoch, self._current[1].item(offset)

    def _read(self, position: int, index: int) -> tuple[Any, int, tuple[BadTile, ...]]:
        """Crops of a tile, or of the one that takes its place, which depends on seed and position only."""
        tile = index
        bad_tiles: list[BadTile] = []
        for attempt in range(MAX_REPLACEMENTS):
            try:
                return self.dataset[tile][0], tile, tuple(bad_tiles)
            except TileReadError as error:
                replacement = derive_seed(self.seed, Draw.REPLACEMENT, position, attempt) % self.size
                place = error.place or TilePlace(archive="", member="")
                bad_tiles.append(BadTile(tile, place, error.reason, replacement))
                tile = replacement
        raise TileReadError(
            f"{MAX_REPLACEMENTS} tiles in a row cannot be used; the last is {bad_tiles[-1]}. "
            "Either the whole data set is of this kind, or its storage fails"
        )


@dataclass(frozen=True)
class CollateTraining:
    """Samples of a `TrainingView` -> batch, drawing nothing."""

    masks: StreamMasks
    dtype: torch.dtype  # of the crops in the batch

    def __call__(self, samples: Sequence[TrainingSample]) -> TrainingBatch:
        """Stack B samples, crop-major."""
        per_sample = torch.from_numpy(np.stack([sample.masks for sample in samples]))  # (B, 2, rows, columns)
        masks = per_sample.transpose(0, 1).flatten(2).flatten(0, 1)  # (2B, N)
        batch = assemble_batch(
            [sample.crops for sample in samples], masks, upperbound=self._upperbound(masks), dtype=self.dtype
        )
        return TrainingBatch(
            **batch,
            positions=torch.tensor([sample.position for sample in samples]),
            tiles=torch.tensor([sample.tile for sample in samples]),
            bad_tiles=[bad for sample in samples for bad in sample.bad_tiles],
        )

    def _upperbound(self, masks: Tensor) -> int:
        """DINOv2's bound for as many masked crops as there are, or what is masked if that is more."""
        num_masked = int(masks.any(dim=1).sum())
        return max(mask_upperbound(num_masked, self.masks.ratios, masks.shape[1]), int(masks.sum()))
