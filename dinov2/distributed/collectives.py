"""Collectives that return their input where one process runs alone."""

from typing import TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from .group import get_device, get_global_size, is_enabled
from .last_collective import recorded

T = TypeVar("T")


def all_reduce_sum(tensor: Tensor) -> Tensor:
    """Sum a tensor over all ranks, in place; returns it."""
    if is_enabled():
        with recorded("all_reduce_sum", tensor):
            dist.all_reduce(tensor, op=dist.ReduceOp.SUM)
    return tensor


def all_reduce_max(tensor: Tensor) -> Tensor:
    """Take the elementwise maximum over all ranks, in place; returns the tensor."""
    if is_enabled():
        with recorded("all_reduce_max", tensor):
            dist.all_reduce(tensor, op=dist.ReduceOp.MAX)
    return tensor


def barrier() -> None:
    """Wait for all ranks."""
    if is_enabled():
        with recorded("barrier"):
            dist.barrier()


def broadcast_object(value: T, src: int = 0) -> T:
    """Give every rank the (picklable) value of rank `src`."""
    if not is_enabled():
        return value
    box = [value]
    with recorded("broadcast_object"):
        dist.broadcast_object_list(box, src=src, device=get_device())
    return box[0]


def all_gather_object(value: T) -> list[T]:
    """The (picklable) values of all ranks, in rank order."""
    if not is_enabled():
        return [value]
    values: list[T | None] = [None] * get_global_size()
    with recorded("all_gather_object"):
        dist.all_gather_object(values, value)
    return cast(list[T], values)


def all_gather_rows(rows: Tensor) -> Tensor:
    """Concatenate tensors (n_r, ...) of all ranks r in rank order; n_r may differ, dtype may not."""
    if not is_enabled():
        return rows
    counts = [torch.zeros(1, dtype=torch.int64, device=rows.device) for _ in range(get_global_size())]
    with recorded("all_gather_rows, its lengths", counts[0]):
        dist.all_gather(counts, torch.tensor([len(rows)], device=rows.device))
    longest = int(torch.stack(counts).max())
    padded = rows.new_zeros((longest, *rows.shape[1:]))
    padded[: len(rows)] = rows
    parts = [torch.empty_like(padded) for _ in counts]
    with recorded("all_gather_rows", padded):
        dist.all_gather(parts, padded)
    return torch.cat([part[: int(count)] for part, count in zip(parts, counts)])
