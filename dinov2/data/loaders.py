"""Data sets from strings, and loaders around them."""

import logging
from collections.abc import Callable, Sequence
from enum import Enum
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler, Sampler

from dinov2.distributed import get_global_rank, get_global_size
from dinov2.errors import UserError

from .datasets import ConcatTileDataset, TileDataset, parse_dataset_string
from .decoding import MAX_PIXELS
from .samplers import EpochSampler, InfiniteSampler, ShardedInfiniteSampler
from .worker_setup import worker_options

logger = logging.getLogger("dinov2")


class SamplerType(Enum):
    """DINOv2's choices of order."""

    DISTRIBUTED = 0
    EPOCH = 1
    INFINITE = 2
    SHARDED_INFINITE = 3
    SHARDED_INFINITE_NEW = 4


def make_dataset(
    *,
    dataset_str: str | Sequence[str],
    transform: Callable[..., Any] | None = None,
    target_transform: Callable[..., Any] | None = None,
    max_pixels: int = MAX_PIXELS,
) -> TileDataset:
    """Open the data set that a string such as `Pathology:root=...:extra=...` describes, or several as one.

    Raises:
        UserError: if a string or a data set is not right.
    """
    transforms = {"transform": transform, "target_transform": target_transform}
    if isinstance(dataset_str, str):
        return _open_dataset(dataset_str, max_pixels=max_pixels, **transforms)
    parts = [_open_dataset(part, max_pixels=max_pixels) for part in dataset_str]
    return ConcatTileDataset(parts, max_pixels=max_pixels, **transforms)


def _open_dataset(text: str, **options: Any) -> TileDataset:
    spec, settings = parse_dataset_string(text)
    dataset = spec.factory(**settings, **options)
    logger.info(f"data set {text}: {len(dataset):,d} samples")
    return dataset


def make_data_loader(
    *,
    dataset: Dataset,
    batch_size: int,
    num_workers: int,
    shuffle: bool = True,
    seed: int = 0,
    sampler_type: SamplerType | None = SamplerType.INFINITE,
    sampler_size: int = -1,
    sampler_advance: int = 0,
    sampler: Sampler | None = None,
    drop_last: bool = True,
    persistent_workers: bool = False,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> DataLoader:
    """A torch loader in one of DINOv2's orders, or in that of a given sampler.

    Args:
        sampler_size: samples an epoch, for `SamplerType.EPOCH`.
        sampler_advance: items of this rank to leave out, for the infinite samplers.
        sampler: replaces `sampler_type`.
    """
    if sampler is None and sampler_type is not None:
        sampler = _make_sampler(dataset, sampler_type, shuffle, seed, sampler_size, sampler_advance)
    return DataLoader(
        dataset,
        sampler=sampler,
        batch_size=batch_size,
        pin_memory=torch.cuda.is_available(),
        drop_last=drop_last,
        persistent_workers=persistent_workers and num_workers > 0,
        **worker_options(num_workers, collate_fn),
    )


def _make_sampler(
    dataset: Dataset, sampler_type: SamplerType, shuffle: bool, seed: int, size: int, advance: int
) -> Sampler:
    count = len(dataset)  # type: ignore[arg-type]
    infinite = sampler_type in (SamplerType.INFINITE, SamplerType.SHARDED_INFINITE, SamplerType.SHARDED_INFINITE_NEW)
    if size > 0 and sampler_type != SamplerType.EPOCH:
        raise UserError(f"sampler_size belongs to SamplerType.EPOCH, not to {sampler_type}")
    if advance > 0 and not infinite:
        raise UserError(f"sampler_advance belongs to the infinite samplers, not to {sampler_type}")
    if sampler_type == SamplerType.INFINITE:
        return InfiniteSampler(sample_count=count, shuffle=shuffle, seed=seed, advance=advance)
    if infinite:
        new = sampler_type == SamplerType.SHARDED_INFINITE_NEW
        return ShardedInfiniteSampler(
            sample_count=count, shuffle=shuffle, seed=seed, advance=advance, use_new_shuffle_tensor_slice=new
        )
    if sampler_type == SamplerType.EPOCH:
        size = size if size > 0 else count
        return EpochSampler(size=size, sample_count=count, shuffle=shuffle, seed=seed)
    return DistributedSampler(
        dataset, num_replicas=get_global_size(), rank=get_global_rank(), shuffle=shuffle, seed=seed, drop_last=False
    )
