"""Features of augmented images, computed as they are needed: what DINOv2's linear evaluation trains on.

Sample, crop and flip at a position of the stream are functions of (seed, position), and a batch of all ranks is a
run of consecutive positions, so that a run that goes on sees what it would have seen.
"""

from collections.abc import Iterator, Sized
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from dinov2.data.worker_setup import start_workers, worker_options
from dinov2.distributed import all_gather_rows, get_global_rank, get_global_size
from dinov2.utils.rng import Draw, derive_seed, seeded

from .features import Features, Network
from .linear_probe import stream_samples


class AugmentedStream(Dataset):
    """Transformed images of a data set and their row in it, by position."""

    def __init__(self, dataset: Dataset, *, seed: int) -> None:
        """Wrap a data set whose transform draws from the global generators only."""
        self.dataset, self.seed, self.size = dataset, seed, len(cast(Sized, dataset))

    def __getitem__(self, position: int) -> tuple[Any, int]:
        """The image at a position, transformed, and its row."""
        row = int(stream_samples(self.size, position, 1, self.seed)[0])
        with seeded(derive_seed(self.seed, Draw.SAMPLE, position)):
            return self.dataset[row][0], row


def augmented_batches(
    dataset: Dataset,
    network: Network,
    *,
    labels: Tensor,
    batch_size: int,
    steps: range,
    device: torch.device,
    num_workers: int = 0,
    seed: int = 0,
) -> Iterator[Features]:
    """Features of all ranks' images for each of some steps, the same on every rank.

    Args:
        labels: (n,) int64 of the samples of the data set.
        batch_size: images of a rank in a step.
    """
    rank, world = get_global_rank(), get_global_size()
    firsts = ((step * world + rank) * batch_size for step in steps)
    mine: Any = [range(first, first + batch_size) for first in firsts]
    loader: DataLoader[Any] = DataLoader(
        AugmentedStream(dataset, seed=seed),
        batch_sampler=mine,
        pin_memory=device.type == "cuda",
        **worker_options(num_workers),
    )
    for images, rows in start_workers(loader):
        with torch.no_grad():
            values = network(images.to(device, non_blocking=True)).float()
        yield Features(all_gather_rows(values), all_gather_rows(labels[rows].to(device)))
