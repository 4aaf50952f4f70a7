"""Sharding with FSDP2 (`fully_shard`): each rank holds a slice of the rows of every parameter.

A unit is gathered by one collective: a transformer block, a head's MLP, a head's prototypes, and what remains of
a backbone (embeddings, positions, final norm).

Blocks and MLPs are gathered in the dtype that they compute in. That halves what travels, and it is what lets
FULL_SHARD save memory: under autocast alone, the backward pass would keep a low-precision copy of each float32
matrix. The other units stay float32: the residual stream takes its dtype from the positions, and prototypes are
normalised in float32, as with autocast. Optimiser, moving average and checkpoints see float32 slices only.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from dinov2.layers import DINOHead
from dinov2.models.vision_transformer import DinoVisionTransformer

from .layout import Layout


def shard(module: nn.Module, layout: Layout, mesh: DeviceMesh) -> None:
    """Keep this rank's slice of every parameter, and gather the others' when a unit runs."""
    frees = layout.frees_after_forward(trained=is_trained(module))
    # Inputs keep their dtype: the residual stream that a block gets is float32.
    rounded = MixedPrecisionPolicy(layout.param_dtype, layout.reduce_dtype, cast_forward_inputs=False)
    exact = MixedPrecisionPolicy(torch.float32, layout.reduce_dtype, cast_forward_inputs=False)
    for unit, may_round in _units(module):
        fully_shard(unit, mesh=mesh, reshard_after_forward=frees, mp_policy=rounded if may_round else exact)


def is_trained(module: nn.Module) -> bool:
    """Whether the module, a student's and no teacher's, gets gradients."""
    return any(parameter.requires_grad for parameter in module.parameters())


@contextmanager
def gathered(module: nn.Module, layout: Layout) -> Iterator[None]:
    """Hold all weights on every rank for the block, so that ranks may call the module unequally often.

    For evaluation: weights that change in the block are lost.
    """
    if not isinstance(module, FSDPModule):
        yield
        return
    for unit in _sharded_units(module):
        unit.unshard()
    module.set_reshard_after_forward(False)
    try:
        yield
    finally:
        module.set_reshard_after_forward(layout.frees_after_forward(trained=is_trained(module)))
        _free(module)


@torch.no_grad()
def local_parameters(module: nn.Module) -> list[Tensor]:
    """This rank's part of every parameter, to be read or changed in place; all of it where nothing is sharded."""
    _free(module)
    return [p.to_local() if isinstance(p, DTensor) else p for p in module.parameters()]


def _units(module: nn.Module) -> list[tuple[nn.Module, bool]]:
    """What is gathered at a time, inner units first, and whether in the dtype of computation."""
    if isinstance(module, DinoVisionTransformer):
        return [*((block, True) for block in module.block_list()), (module, False)]
    if isinstance(module, DINOHead):
        return [(module.last_layer, False), (module, True)]
    return [(module, True)]


def _sharded_units(module: nn.Module) -> list[FSDPModule]:
    return [unit for unit in module.modules() if isinstance(unit, FSDPModule)]


def _free(module: nn.Module) -> None:
    """Leave only slices on this rank, as a pass without gradients may not have done."""
    for unit in _sharded_units(module):
        unit.reshard()
