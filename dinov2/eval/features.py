"""Features of a whole data set: every image once, through all networks asked for, by all ranks together.

Batch b of a data set is its samples b * B to b * B + B - 1, and rank r of W runs the batches r, r + W, r + 2W, ...
What a batch is made of does not depend on the number of ranks, so neither does a single bit of its features; another
batch size may change their last bits, since a matrix product of another height may add in another order.

Every rank runs the networks equally often, with a batch of padding where it has none left: a forward pass of a
sharded network is a collective.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from dinov2.data.worker_setup import start_workers, worker_options
from dinov2.distributed import get_global_rank, get_global_size
from dinov2.errors import UserError
from dinov2.utils.progress import Progress

from .feature_rows import FileRows, MemoryRows

PIECE = 1 << 16  # samples looked at together


class Features(NamedTuple):
    """Samples as a classifier sees them.

    Attributes:
        values: (n, D) float32; they may be mapped from a file.
        labels: (n,) int64.
        groups: (n,) int64, equal for samples of one slide or patient, in all sets that are used together; None if
            that is not known.
        sites: (n,) int64, likewise for samples of one site: a hospital, laboratory or scanner.
    """

    values: Tensor
    labels: Tensor
    groups: Tensor | None = None
    sites: Tensor | None = None

    def select(self, rows: Tensor) -> "Features":
        """The samples at some rows (m,) int64."""
        return Features(*(None if part is None else part[rows.to(part.device)] for part in self))  # type: ignore[arg-type]

    def columns(self, columns: slice) -> "Features":
        """The same samples with some of their features."""
        return self._replace(values=self.values[:, columns])


# Images (B, C, H, W) on the device -> features (B, D).
Network = Callable[[Tensor], Tensor]

# From the batches of a rank and a number of rounds, the same on all ranks, to a batch or None for each round.
Rounds = Callable[[Iterator[Any], int], Iterable[Any]]


def plain_rounds(batches: Iterator[Any], count: int) -> Iterator[Any]:
    """A batch for each of `count` rounds; None where there are no more."""
    return (next(batches, None) for _ in range(count))


@dataclass(frozen=True)
class Extraction:
    """How features are computed and where they are kept.

    Attributes:
        batch_size: images in a forward pass of a rank.
        num_workers: processes that decode, per rank.
        on_cpu: keep them in main memory instead of on the device.
        folder: keep them in files there, mapped into memory; all ranks must see it. None: keep them in memory.
        rounds: gives out the batches; it may leave by an exception, on all ranks at once.
        title: what progress is reported as; empty: only where it takes long.
    """

    batch_size: int = 128
    num_workers: int = 0
    on_cpu: bool = False
    folder: Path | None = None
    rounds: Rounds = plain_rounds
    title: str = ""


@torch.no_grad()
def extract_features(
    networks: Mapping[str, Network], dataset: Dataset, *, device: torch.device, how: Extraction = Extraction()
) -> dict[str, Features]:
    """Run networks over (image, label) samples, in one pass over the data.

    Returns:
        For every network, the features of all samples in the order of the data set, the same on every rank.
    Raises:
        UserError: if there are no samples, or features that are no finite numbers.
    """
    samples = len(cast(Sized, dataset))
    if samples == 0:
        raise UserError("a data set without samples has no features")
    labels = MemoryRows(samples, device=torch.device("cpu"))
    rows = {name: _rows(name, samples, device, how) for name in networks}
    with Progress(how.title or "features", samples, quiet=not how.title) as progress:
        for first, count, images, batch_labels in _batches(dataset, device, how):
            labels.add(first, batch_labels[:count].to(device))
            for name, network in networks.items():
                rows[name].add(first, network(images)[:count].float())
            progress.add(how.batch_size * get_global_size())
    found = {name: Features(kept.finish(), labels.finish()) for name, kept in rows.items()}
    for name, features in found.items():
        _check_finite(name, features.values)
    return found


def _rows(name: str, samples: int, device: torch.device, how: Extraction) -> MemoryRows | FileRows:
    """Where the features of a network are kept."""
    if how.folder is not None:
        return FileRows(samples, path=how.folder / f"{name}.npy")
    return MemoryRows(samples, device=torch.device("cpu") if how.on_cpu else device)


def _batches(dataset: Dataset, device: torch.device, how: Extraction) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """For each round of this rank: its first sample, how many, images (>= 1, C, H, W) and labels."""
    samples, rank, world = len(cast(Sized, dataset)), get_global_rank(), get_global_size()
    firsts = range(rank * how.batch_size, samples, world * how.batch_size)
    mine: Any = [range(first, min(first + how.batch_size, samples)) for first in firsts]
    loader: DataLoader[Any] = DataLoader(
        dataset,
        batch_sampler=mine,
        pin_memory=device.type == "cuda",
        **worker_options(how.num_workers),
    )
    rounds = math.ceil(samples / (how.batch_size * world))
    for number, batch in enumerate(how.rounds(start_workers(loader), rounds)):
        images, labels = batch or default_collate([cast(Any, dataset)[0]])
        count = len(labels) if batch else 0
        first = min((number * world + rank) * how.batch_size, samples)
        yield first, count, images.to(device, non_blocking=True), labels


def _check_finite(name: str, values: Tensor) -> None:
    """Refuse features (n, D) that are NaN or infinite, piece by piece."""
    for number, part in enumerate(values.split(PIECE)):
        bad = (~part.isfinite().all(dim=1)).nonzero().flatten()
        if len(bad):
            raise UserError(
                f"the features of sample {number * PIECE + int(bad[0]):,} by the {name} are not finite numbers. Either "
                "its weights are not, or they overflow in the dtype that it computes in: fp32 tells which"
            )
