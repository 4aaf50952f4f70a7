"""From a module and its layout to what forward passes go through."""

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import default_hooks
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule
from torch.nn.parallel import DistributedDataParallel

from dinov2.distributed import get_global_size

from .layout import Layout
from .shard import is_trained, shard

_COMPRESSIONS = {torch.float16: default_hooks.fp16_compress_hook, torch.bfloat16: default_hooks.bf16_compress_hook}


def process_mesh(device: torch.device) -> DeviceMesh | None:
    """All processes of the run in a row; None where one works alone."""
    return init_device_mesh(device.type, (get_global_size(),)) if get_global_size() > 1 else None


@torch.no_grad()
def broadcast_from_first_rank(module: nn.Module) -> None:
    """Give every rank the parameters and buffers of rank 0; nothing may be sharded yet."""
    if get_global_size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            dist.broadcast(tensor, src=0)


def parallelize(module: nn.Module, layout: Layout, mesh: DeviceMesh | None) -> nn.Module:
    """What the forward pass of a module has to go through; its weights must be equal on all ranks.

    Args:
        mesh: of `process_mesh`; without one nothing is done.
    Returns:
        The module itself, whose parameters become sharded in place if the layout says so, or a replica
        that averages gradients.
    """
    if mesh is None:
        return module
    if layout.is_sharded:
        shard(module, layout, mesh)
        return module
    return _replicate(module, layout) if is_trained(module) else module


def _replicate(module: nn.Module, layout: Layout) -> DistributedDataParallel:
    device = next(module.parameters()).device
    replica = DistributedDataParallel(
        module,
        device_ids=[device] if device.type == "cuda" else None,
        init_sync=False,  # the weights are equal already
        gradient_as_bucket_view=True,
    )
    if layout.reduce_dtype in _COMPRESSIONS:
        replica.register_comm_hook(None, _COMPRESSIONS[layout.reduce_dtype])
    return replica


@contextmanager
def gradient_sync(calls: Iterable[nn.Module], *, enabled: bool) -> Iterator[None]:
    """Average gradients over ranks in backward passes of the block, or let them add up on each rank.

    Args:
        calls: what `parallelize` returned; forward passes belong into the block too.
    """
    with ExitStack() as stack:
        for module in calls:
            if isinstance(module, FSDPModule):
                module.set_requires_gradient_sync(enabled)
            elif isinstance(module, DistributedDataParallel) and not enabled:
                stack.enter_context(module.no_sync())
        yield
