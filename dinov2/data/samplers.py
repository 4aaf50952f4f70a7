"""In which order samples are drawn.

`PositionSampler` is what training uses: it only counts, and `data.training_view` turns a position into a
sample of the shuffled data set. The other three are DINOv2's, with its exact sequences.
"""

import itertools
from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from dinov2.distributed import get_global_rank, get_global_size


class PositionSampler(Sampler[int]):
    """This rank's positions of the endless stream of training samples.

    Every batch of all ranks together is a run of consecutive positions, of which rank r has the r-th part, so that
    the batches of the ranks one after the other are the batch that a single process would have.
    """

    def __init__(
        self, batch_size: int, *, start: int = 0, rank: int | None = None, world_size: int | None = None
    ) -> None:
        """Begin at a number of samples already consumed by all ranks together, which take `batch_size` each."""
        self.batch_size = batch_size
        self.start = start
        self.rank = get_global_rank() if rank is None else rank
        self.world_size = get_global_size() if world_size is None else world_size

    def __iter__(self) -> Iterator[int]:
        for first in itertools.count(self.start + self.rank * self.batch_size, self.batch_size * self.world_size):
            yield from range(first, first + self.batch_size)


class EpochSampler(Sampler[int]):
    """`size` samples an epoch, from as many repetitions of the data set as that takes."""

    def __init__(
        self,
        *,
        size: int,
        sample_count: int,
        shuffle: bool = False,
        seed: int = 0,
        start: int | None = None,
        step: int | None = None,
    ) -> None:
        """Store the shape of an epoch; `start` and `step` are rank and world size by default.

        DINOv2 multiplies seed and epoch, so that epoch 0 has the same order for every seed.
        """
        self.size = size
        self.sample_count = sample_count
        self.shuffle = shuffle
        self.seed = seed
        self.start = get_global_rank() if start is None else start
        self.step = get_global_size() if step is None else step
        self.epoch = 0

    def __iter__(self) -> Iterator[int]:
        repeats = -(-self.size // self.sample_count)
        indices = np.tile(np.arange(self.sample_count), repeats)
        if self.shuffle:
            seed = self.seed * self.epoch if self.seed != 0 else self.epoch
            chosen = np.random.default_rng(seed).choice(indices, self.size, replace=False)
        else:
            chosen = indices[: self.size]
        yield from chosen[self.start :: self.step].tolist()

    def __len__(self) -> int:
        return -(-(self.size - self.start) // self.step)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next pass."""
        self.epoch = epoch


class InfiniteSampler(Sampler[int]):
    """Endless passes; each rank takes every `step`-th item of a pass that all ranks share."""

    def __init__(
        self,
        *,
        sample_count: int,
        shuffle: bool = False,
        seed: int = 0,
        start: int | None = None,
        step: int | None = None,
        advance: int = 0,
    ) -> None:
        """Store the stream; `advance` is the number of this rank's items to leave out."""
        self.sample_count = sample_count
        self.shuffle = shuffle
        self.seed = seed
        self.start = get_global_rank() if start is None else start
        self.step = get_global_size() if step is None else step
        self.advance = advance

    def __iter__(self) -> Iterator[int]:
        return itertools.islice(self._items(), self.advance, None)

    def _items(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed)
        while True:
            order = self._shuffled(generator) if self.shuffle else range(self.sample_count)
            yield from order[self.start :: self.step]

    def _shuffled(self, generator: torch.Generator) -> list[int]:
        order = torch.randperm(self.sample_count, generator=generator).tolist()
        # DINOv2's loop also draws a number for the last item, where there is nothing left to choose.
        torch.randint(0, 1, size=(1,), generator=generator)
        return order


class ShardedInfiniteSampler(Sampler[int]):
    """Endless passes over a fixed share of the data set, reshuffled within the share.

    Kept for runs that must follow DINOv2's order: a rank never sees another rank's samples, and up to
    step - 1 samples are never seen at all.
    """

    def __init__(
        self,
        *,
        sample_count: int,
        shuffle: bool = False,
        seed: int = 0,
        start: int | None = None,
        step: int | None = None,
        advance: int = 0,
        use_new_shuffle_tensor_slice: bool = False,
    ) -> None:
        """Store the stream.

        Args:
            advance: items to leave out; as in DINOv2 whole passes are counted in samples of all ranks
                and the rest in samples of this one.
            use_new_shuffle_tensor_slice: shuffle by `torch.randperm` instead of the inside-out shuffle.
        """
        self.sample_count = sample_count
        self.shuffle = shuffle
        self.seed = seed
        self.start = get_global_rank() if start is None else start
        self.step = get_global_size() if step is None else step
        self.advance = advance
        self._shuffle_shard = _shuffle_by_permutation if use_new_shuffle_tensor_slice else _shuffle_inside_out

    def __iter__(self) -> Iterator[int]:
        if not self.shuffle:
            items = itertools.cycle(range(self.sample_count)[self.start :: self.step])
            return itertools.islice(items, self.advance, None)
        passes, rest = divmod(self.advance, self.sample_count)
        return itertools.islice(self._shuffled_items(passes), rest, None)

    def _shuffled_items(self, first_pass: int) -> Iterator[int]:
        dtype = torch.int32 if self.sample_count <= 2**31 else torch.int64
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.randperm(self.sample_count, dtype=dtype, generator=generator)
        shard = order[self.start :: self.step][: self.sample_count // self.step]
        for number in itertools.count(first_pass):
            generator = torch.Generator().manual_seed(self.seed + self.start + (number << 24))
            yield from self._shuffle_shard(shard, generator).tolist()


def _shuffle_inside_out(shard: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Durstenfeld's inside-out shuffle of (n,) indices, drawing one number an item."""
    result = torch.empty_like(shard)
    for i in range(len(shard)):
        j = int(torch.randint(0, i + 1, size=(1,), generator=generator)[0]) if i > 0 else 0
        result[i] = result[j].clone()
        result[j] = shard[i]
    return result


def _shuffle_by_permutation(shard: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Shuffle (n,) indices at once."""
    return shard[torch.randperm(len(shard), dtype=shard.dtype, generator=generator).long()]
