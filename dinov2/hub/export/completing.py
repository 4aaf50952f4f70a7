"""Tensors that other libraries always have, where a model leaves them out: they change nothing."""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

_LINEAR = re.compile(r"blocks\.\d+\.(attn\.(qkv|proj)|mlp\.(fc1|fc2|w12|w3))\.weight")


def with_all_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone with a bias of zero and a LayerScale of one wherever it has none.

    Args:
        state: under DINOv2's names, blocks not chunked.
    """
    result = dict(state)
    for name, weight in state.items():
        if _LINEAR.fullmatch(name):
            result.setdefault(name.removesuffix("weight") + "bias", weight.new_zeros(len(weight)))
        if name.endswith(".norm1.weight"):
            block = name.removesuffix("norm1.weight")
            for scale in ("ls1", "ls2"):
                result.setdefault(f"{block}{scale}.gamma", torch.ones_like(weight))
    return result
