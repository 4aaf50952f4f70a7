"""timm's names of a DINOv2 backbone, and of plain vision transformers.

What differs from DINOv2's names: `reg_token` for `register_tokens`; `fc1` and `fc2` also where they are the gate and
output of a SwiGLU; no mask token. Where a model has registers, its positions have no row for the class token: timm
adds that row to the class token itself, and so does `to_timm`.
"""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from .names import renamed, unchunked

_TO_TIMM = (
    (r"^register_tokens$", "reg_token"),
    (r"^(blocks\.\d+\.mlp)\.w12\.", r"\1.fc1."),
    (r"^(blocks\.\d+\.mlp)\.w3\.", r"\1.fc2."),
)
_FROM_TIMM = ((r"^reg_token$", "register_tokens"),)
_FROM_TIMM_GATED = ((r"^(blocks\.\d+\.mlp)\.fc1\.", r"\1.w12."), (r"^(blocks\.\d+\.mlp)\.fc2\.", r"\1.w3."))


def to_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's tensors under the names of timm's `vit_*_patch14_dinov2` and `vit_*_patch14_reg4_dinov2`.

    The mask token is left out. With registers, the class token takes up its position, and `pos_embed` is (1, N, D).

    Args:
        state: of a `DinoVisionTransformer`, chunked or not.
    Returns:
        What the timm model of the same image size loads strictly.
    """
    plain = {unchunked(name): tensor for name, tensor in state.items() if name != "mask_token"}
    if "register_tokens" in plain:
        positions = plain["pos_embed"]  # (1, 1 + N, D)
        plain["cls_token"] = plain["cls_token"] + positions[:, :1]
        plain["pos_embed"] = positions[:, 1:]
    return renamed(plain, _TO_TIMM)


def from_timm(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a vision transformer of timm under DINOv2's names.

    The position that a class token has taken up stays in it, and its row of `pos_embed` is zero: the model computes
    the same. There is no mask token, since timm has none. Names that are DINOv2's already stay.

    Args:
        state: with `pos_embed` (1, N, D), (1, 1 + N, D) or, with R registers, (1, 1 + R + N, D).
    Returns:
        Tensors under DINOv2's names, blocks not chunked, with `pos_embed` (1, 1 + N, D).
    """
    plain = {unchunked(name): tensor for name, tensor in state.items()}
    pairs = _FROM_TIMM + (_FROM_TIMM_GATED if _is_gated(plain) else ())
    return _with_class_position(renamed(plain, pairs))


def _is_gated(state: Mapping[str, Tensor]) -> bool:
    """Whether `fc1` makes gates and values: its rows are then twice the columns of `fc2`."""
    first, second = state.get("blocks.0.mlp.fc1.weight"), state.get("blocks.0.mlp.fc2.weight")
    return first is not None and second is not None and first.shape[0] == 2 * second.shape[1]


def _with_class_position(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Make positions (1, 1 + N, D) of those that have no row for the class token, or rows for registers."""
    positions, registers = state.get("pos_embed"), state.get("register_tokens")
    if positions is None or positions.ndim != 3 or _is_square(positions.shape[1] - 1):
        return state
    if _is_square(positions.shape[1]):
        nothing = torch.zeros_like(positions[:, :1])
        return {**state, "pos_embed": torch.cat((nothing, positions), dim=1)}
    count = 0 if registers is None else registers.shape[1]
    if registers is not None and _is_square(positions.shape[1] - 1 - count):
        kept = torch.cat((positions[:, :1], positions[:, 1 + count :]), dim=1)
        return {**state, "pos_embed": kept, "register_tokens": registers + positions[:, 1 : 1 + count]}
    return state


def _is_square(count: int) -> bool:
    return count >= 0 and math.isqrt(count) ** 2 == count
