"""Features of a whole data set, computed by all ranks together and returned in data set order."""

import math
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from dinov2.data.worker_setup import WorkerSetup, start_workers
from dinov2.distributed import all_gather_rows, get_global_rank, get_global_size
from dinov2.errors import UserError


class Features(NamedTuple):
    """Features (n, D) float32 and labels (n,) int64 of n samples."""

    values: Tensor
    labels: Tensor


# From the batches of a rank and a number of rounds, the same on all ranks, to a batch or None for each round.
Rounds = Callable[[Iterator[Any], int], Iterable[Any]]


def plain_rounds(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """A batch for each of `count` rounds; None where there are no more."""
    return (next(batches, None) for _ in range(count))


@torch.inference_mode()
def extract_features(
    model: Callable[[Tensor], Tensor],
    dataset: Dataset,
    *,
    device: torch.device,
    batch_size: int = 128,
    num_workers: int = 0,
    gather_on_cpu: bool = False,
    rounds: Rounds = plain_rounds,
) -> Features:
    """Run a model over (image, label) samples.

    Args:
        model: images (B, C, H, W) on `device` -> features (B, D).
        gather_on_cpu: keep the features in main memory instead of on `device`.
        rounds: gives out the batches; it may leave by an exception, on all ranks at once.
    Returns:
        The features of all samples, the same on every rank.
    """
    rank, world, samples = get_global_rank(), get_global_size(), len(cast(Sized, dataset))
    if samples < world:
        raise UserError(f"{samples} labelled tiles are fewer than the {world} processes of this run")
    mine = range(rank, samples, world)
    most = math.ceil(math.ceil(samples / world) / batch_size)  # batches of the first rank; others may have one less
    loader: DataLoader[Any] = DataLoader(
        Subset(dataset, mine), batch_size=batch_size, num_workers=num_workers, worker_init_fn=WorkerSetup(num_workers)
    )
    values, labels = [], []
    for batch in rounds(start_workers(loader), most):
        if batch is None:
            continue
        images, batch_labels = batch
        features = model(images.to(device, non_blocking=True)).float()
        values.append(features.cpu() if gather_on_cpu else features)
        labels.append(batch_labels.to(values[-1].device))
    own = Features(torch.cat(values), torch.cat(labels))
    return _in_dataset_order(own, device) if world > 1 else own


def _in_dataset_order(own: Features, device: torch.device) -> Features:
    """Interleave what rank r computed of samples r, r + world, ... into one set."""
    world, rank = get_global_size(), get_global_rank()
    index = torch.arange(len(own.labels), device=device) * world + rank
    order = all_gather_rows(index).argsort().to(own.values.device)
    values = all_gather_rows(own.values.to(device)).to(own.values.device)[order]
    labels = all_gather_rows(own.labels.to(device)).to(own.values.device)[order]
    return Features(values, labels)
