"""Registers and LayerScale that only one of a file and a model has."""

from collections.abc import Mapping

import torch
from torch import Tensor

# What `LoadOptions.allow` may name.
REGISTERS, LAYERSCALE, PARTIAL = "registers", "layerscale", "partial"

_BRANCHES = {"ls1": ("attn.proj",), "ls2": ("mlp.fc2", "mlp.w3")}  # the last layer of each branch of a block


def adapt_registers(state: dict[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Leave out registers that the model has not.

    Args:
        state: of the file, changed in place.
        tensors: of the model.
    Returns:
        Notes on what was done.
    """
    if "register_tokens" not in state or "register_tokens" in tensors:
        return []
    count = state.pop("register_tokens").shape[1]
    return [f"the {count} registers of the file are left out, which changes its features"]


def adapt_layerscale(state: dict[str, Tensor], tensors: Mapping[str, Tensor]) -> list[str]:
    """Let LayerScale of one side change nothing that is computed.

    Scales that the file has not are 1; those that the model has not are multiplied into the layers before them.
    Arguments and result are those of `adapt_registers`.
    """
    wanted = [name for name in tensors if name.endswith(".gamma")]
    stored = [name for name in state if name.endswith(".gamma")]
    if wanted and not stored:
        state.update({name: torch.ones_like(tensors[name], device="cpu") for name in wanted})
        return ["LayerScale starts at 1, since the file has none: the features are the same"]
    if stored and not wanted:
        for name in stored:
            _fold(state, name)
        return ["the file's LayerScale is multiplied into the layers before it: the features are the same"]
    return []


def _fold(state: dict[str, Tensor], name: str) -> None:
    """Multiply `blocks.{i}.ls{n}.gamma` (D,) into weights (D, .) and bias (D,) of the branch's last layer."""
    block, scale, _ = name.rsplit(".", 2)
    gamma = state.pop(name)
    for layer in _BRANCHES[scale]:
        for kind in ("weight", "bias"):
            key = f"{block}.{layer}.{kind}"
            if key in state:
                state[key] = gamma.view(-1, *[1] * (state[key].ndim - 1)) * state[key]
