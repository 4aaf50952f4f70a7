"""Learning-rate and weight-decay multipliers of every parameter.

Source: layer-wise decay of Clark et al. 2020 (ELECTRA) and Bao et al. 2022 (BEiT), with DINOv2's rules:
tokens and positions are decayed like weights, biases, norms and LayerScale are not.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict

from torch import nn

EMBEDDINGS = ("pos_embed", "patch_embed", "mask_token", "cls_token", "register_tokens")


class ParameterSettings(TypedDict):
    """One parameter and how its learning rate and weight decay differ from the schedule's."""

    params: nn.Parameter
    name: str
    lr_multiplier: float
    wd_multiplier: float
    is_last_layer: bool


def get_params_groups_with_decay(
    model: nn.Module, lr_decay_rate: float = 1.0, patch_embed_lr_mult: float = 1.0
) -> list[ParameterSettings]:
    """Settings of all trainable parameters, in their order.

    Args:
        model: a backbone (with `n_blocks`) or a head (all multipliers 1).
        lr_decay_rate: factor per layer below the last.
        patch_embed_lr_mult: extra factor of the patch embedding.
    """
    num_layers = getattr(model, "n_blocks", 0)
    settings = []
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        layer = _layer_of(name, num_layers)
        lr_multiplier = lr_decay_rate ** (num_layers + 1 - layer)
        if "patch_embed" in name:
            lr_multiplier *= patch_embed_lr_mult
        undecayed = name.endswith(".bias") or "norm" in name or "gamma" in name
        settings.append(
            ParameterSettings(
                params=parameter,
                name=name,
                lr_multiplier=lr_multiplier,
                wd_multiplier=0.0 if undecayed else 1.0,
                is_last_layer="last_layer" in name,
            )
        )
    return settings


def fuse_params_groups(
    settings: Iterable[Mapping[str, Any]], keys: Sequence[str] = ("lr_multiplier", "wd_multiplier", "is_last_layer")
) -> list[dict[str, Any]]:
    """Optimizer groups of parameters with equal settings, in order of first appearance."""
    groups: dict[tuple[Any, ...], dict[str, Any]] = {}
    for item in settings:
        shared = {key: item[key] for key in keys}
        group = groups.setdefault(tuple(shared.values()), {"params": [], **shared})
        group["params"].append(item["params"])
    return list(groups.values())


def _layer_of(name: str, num_layers: int) -> int:
    """0 for embeddings, i + 1 for block i, L + 1 for everything after the blocks."""
    if num_layers == 0:
        return 1
    if any(part in name for part in EMBEDDINGS):
        return 0
    block = re.search(r"(?:^|\.)blocks\.(?:\d+\.)?(\d+)\.", name)
    return int(block.group(1)) + 1 if block else num_layers + 1
