"""Loading the backbone of a weights file: by name, completely, or not at all."""

import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from dinov2.errors import UserError

from .position import resize_position_grid

logger = logging.getLogger("dinov2")

_WRAPPERS = ("teacher", "model", "state_dict")


def load_pretrained_backbone(model: nn.Module, path: str) -> None:
    """Load a bare backbone file of DINOv2, or a teacher export, into a backbone.

    Prefixes (`module.`, `backbone.`) and names of block chunks may differ; positions of another image size are
    resampled.

    Raises:
        UserError: if the file cannot be read, or names or shapes do not all agree.
    """
    weights = {unchunked(_bare(name)): tensor for name, tensor in read_weights(path).items()}
    shapes = model.state_dict()
    own = {unchunked(name): name for name in shapes}
    weights = {name: tensor for name, tensor in weights.items() if name in own or not _is_head(name)}
    if "pos_embed" in weights:
        weights["pos_embed"] = _fit_positions(weights["pos_embed"], shapes["pos_embed"].shape[1] - 1)
    missing, unexpected = sorted(set(own) - set(weights)), sorted(set(weights) - set(own))
    wrong = [n for n in sorted(set(own) & set(weights)) if weights[n].shape != shapes[own[n]].shape]
    if missing or unexpected or wrong:
        raise UserError(
            f"{path} does not fit the backbone of the configuration: {_list('missing', missing)}"
            f"{_list('not in the model', unexpected)}{_list('of another shape', wrong)}check student.arch, patch_size, "
            "ffn_layer, layerscale and num_register_tokens"
        )
    model.load_state_dict({own[name]: tensor for name, tensor in weights.items()})
    logger.info(f"loaded all {len(own)} tensors of the backbone from {path}")


def read_weights(path: str) -> Mapping[str, Tensor]:
    """The state dict in a file, without running code that it may contain.

    Raises:
        UserError: if the file is missing or holds no state dict.
    """
    if not Path(path).is_file():
        raise UserError(f"weights file {path} does not exist")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise UserError(f"weights file {path} cannot be read: {error}") from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise UserError(f"weights file {path} holds no mapping of names to tensors")
    return content


def unchunked(name: str) -> str:
    """`blocks.{chunk}.{i}.` -> `blocks.{i}.`."""
    return re.sub(r"(^|\.)blocks\.\d+\.(\d+\.)", r"\1blocks.\2", name)


def _bare(name: str) -> str:
    for prefix in ("module.", "teacher.", "student.", "backbone."):
        name = name.removeprefix(prefix)
    return name


def _is_head(name: str) -> bool:
    return name.startswith(("dino_head.", "ibot_head."))


def _fit_positions(positions: Tensor, wanted: int) -> Tensor:
    """Positions (1, 1 + M*M, D) resampled to (1, 1 + wanted, D)."""
    stored = positions.shape[1] - 1
    side, wanted_side = math.isqrt(stored), math.isqrt(wanted)
    if stored == wanted or side**2 != stored or wanted_side**2 != wanted:
        return positions
    logger.info(f"resampled the positions from {side}x{side} to {wanted_side}x{wanted_side}")
    grid = positions[0, 1:].unflatten(0, (side, side))
    resized = resize_position_grid(grid, (wanted_side, wanted_side), offset=0.0).flatten(0, 1)
    return torch.cat((positions[:, :1].float(), resized[None]), dim=1)


def _list(what: str, names: list[str]) -> str:
    return f"{len(names)} {what} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}); " if names else ""
