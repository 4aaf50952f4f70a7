"""Names of tensors: what wrappers, replicas and runs put around them."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from torch import Tensor

from dinov2.errors import UserError

NETWORKS = ("teacher", "student")
HEADS = ("dino_head", "ibot_head")

# Parts of a name that compilation, replicas, sharding and activation checkpointing insert anywhere.
_WRAPPERS = frozenset({"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# What stands before a backbone's own names: attributes of meta architectures, of classifiers, of Lightning modules.
_OWNERS = frozenset({*NETWORKS, "model", "backbone", "dinov2", "dinov2_with_registers"})
# What stands beside a backbone and is none of it.
_OTHERS = frozenset(
    {"head", "head_dist", "classifier", "linear_head", "dino_loss", "ibot_patch_loss", "koleo_loss", "optimizer"}
)


class Place(NamedTuple):
    """Where a tensor belongs.

    Attributes:
        network: "teacher", "student", or "" where its name does not say.
        part: "backbone", "dino_head", "ibot_head", or "" for what is none of them.
        name: within that part.
    """

    network: str
    part: str
    name: str


def place_of(name: str) -> Place:
    """Read `module.teacher.backbone.blocks.0.norm1.weight` and its like.

    The projection head of DINO v1, `head.mlp` and `head.last_layer`, is the `dino_head`.
    """
    parts = without_wrappers(name).split(".")
    network = ""
    while len(parts) > 1 and parts[0] in _OWNERS:
        network = parts[0] if parts[0] in NETWORKS else network
        parts = parts[1:]
    if len(parts) > 1 and parts[0] in HEADS:
        return Place(network, parts[0], plain_weight_norm(".".join(parts[1:])))
    if len(parts) > 1 and parts[0] == "head" and parts[1] in ("mlp", "last_layer"):
        return Place(network, "dino_head", plain_weight_norm(".".join(parts[1:])))
    rest = ".".join(parts)
    return Place(network, "" if not parts or parts[0] in _OTHERS else "backbone", rest)


def without_wrappers(name: str) -> str:
    """A name without what wrappers have put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def plain_weight_norm(name: str) -> str:
    """`parametrizations.weight.original0` and `1`, as torch writes them since 2.0 -> `weight_g` and `weight_v`."""
    return name.replace("parametrizations.weight.original0", "weight_g").replace(
        "parametrizations.weight.original1", "weight_v"
    )


def unchunked(name: str) -> str:
    """`blocks.{chunk}.{i}.` -> `blocks.{i}.`"""
    return re.sub(r"(^|\.)blocks\.\d+\.(\d+\.)", r"\1blocks.\2", name)


def renamed(state: Mapping[str, Tensor], pairs: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """A state dict with patterns replaced in its names, one after the other.

    Raises:
        UserError: if two tensors get the same name.
    """
    result: dict[str, Tensor] = {}
    for name, tensor in state.items():
        new = name
        for pattern, replacement in pairs:
            new = re.sub(pattern, replacement, new)
        if new in result:
            raise UserError(f"two tensors of the file are both {new}: one of them is {name}")
        result[new] = tensor
    return result
