"""Which tokens of a backbone make a feature."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule, register_fsdp_forward_method

from dinov2.errors import UserError
from dinov2.hub.frozen import FrozenBackbone
from dinov2.utils.dtype import autocast

from .features import Network


@dataclass(frozen=True)
class FeatureKind:
    """Class tokens of the last blocks, the earliest first, then the mean patch token of the last block if asked for.

    All tokens have gone through the final norm. For blocks of width D the feature has num_blocks * D numbers, or
    (num_blocks + 1) * D.
    """

    num_blocks: int = 1
    avgpool: bool = False

    def __str__(self) -> str:
        return f"{self.num_blocks}_blocks_avgpool_{self.avgpool}"

    def of(self, backbone: FrozenBackbone, images: Tensor) -> Tensor:
        """Images (B, C, H, W) -> features (B, width) float32."""
        layers = backbone.get_intermediate_layers(images, n=self.num_blocks, return_class_token=True)
        tokens = [class_token.float() for _, class_token in layers]  # (B, D) each
        if self.avgpool:
            tokens.append(layers[-1][0].float().mean(dim=1))  # patches (B, N, D)
        return torch.cat(tokens, dim=1)

    def columns(self, kind: "FeatureKind", embed_dim: int) -> slice:
        """Where another kind's numbers stand in features of this kind, which must have all of them."""
        assert kind.num_blocks <= self.num_blocks
        assert self.avgpool or not kind.avgpool
        end = self.num_blocks + kind.avgpool
        return slice((self.num_blocks - kind.num_blocks) * embed_dim, end * embed_dim)


def grid_columns(n_last_blocks: Sequence[int], width: int) -> dict[str, slice]:
    """Columns of the features of `widest_kind` that each kind of DINOv2's grid has, by its name.

    Args:
        n_last_blocks: numbers of blocks, with and without the mean patch token each.
        width: of the features, (max(n_last_blocks) + 1) * D.
    """
    widest = widest_kind(n_last_blocks)
    kinds = [FeatureKind(blocks, avgpool) for blocks in n_last_blocks for avgpool in (False, True)]
    return {str(kind): widest.columns(kind, width // (widest.num_blocks + 1)) for kind in kinds}


def check_blocks(n_last_blocks: Sequence[int], *, available: int) -> None:
    """Refuse numbers of last blocks that a backbone with `available` blocks does not have.

    Raises:
        UserError: for a number out of range, or given twice.
    """
    given = f"--n-last-blocks {' '.join(map(str, n_last_blocks))}"
    if min(n_last_blocks) < 1 or max(n_last_blocks) > available:
        raise UserError(f"{given}: expected 1 .. {available}, the blocks of the backbone")
    if len(set(n_last_blocks)) < len(n_last_blocks):
        raise UserError(f"{given}: expected each number once")


def widest_kind(n_last_blocks: Sequence[int]) -> FeatureKind:
    """The kind that has the features of all kinds of a grid."""
    return FeatureKind(max(n_last_blocks), avgpool=True)


def backbone_network(backbone: FrozenBackbone, kind: FeatureKind, *, dtype: str, device: torch.device) -> Network:
    """What `extract_features` runs: a backbone in evaluation mode, sharded or not, computing in the named dtype.

    Raises:
        UserError: if the kind wants more blocks than there are.
    """
    if not 1 <= kind.num_blocks <= backbone.n_blocks:
        raise UserError(f"tokens of the last {kind.num_blocks} blocks: expected 1 .. {backbone.n_blocks}")
    if isinstance(backbone, FSDPModule) and "get_intermediate_layers" not in vars(backbone):
        register_fsdp_forward_method(backbone, "get_intermediate_layers")

    def network(images: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, width)."""
        with autocast(dtype, device):
            return kind.of(backbone, images)

    return network


@contextmanager
def evaluated(*modules: nn.Module) -> Iterator[None]:
    """Modules in evaluation mode for the block; sharded ones hold nothing but their slices after it."""
    were_training = [module.training for module in modules]
    for module in modules:
        module.eval()
    try:
        yield
    finally:
        for module, was_training in zip(modules, were_training):
            module.train(was_training)
            for unit in module.modules():
                if isinstance(unit, FSDPModule):
                    unit.reshard()
