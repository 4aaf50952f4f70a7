"""DINOv2's backbones by name, with its own weights or any that fit."""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

from dinov2.errors import unknown_name
from dinov2.models.vision_transformer import ARCHITECTURES, DinoVisionTransformer
from dinov2.models.weights import load_pretrained_backbone

from .registry import find, is_url, path_exists
from .resolve import resolve_weights


class Weights(Enum):
    """What DINOv2's backbones were trained on."""

    LVD142M = "LVD142M"


def load_backbone(
    name: str, *, pretrained: bool = True, weights: Weights | str | Path = Weights.LVD142M, **kwargs: Any
) -> DinoVisionTransformer:
    """A backbone of the list of published weights.

    Args:
        name: such as dinov2_vits14.
        pretrained: with weights; else initialised at random.
        weights: the published ones, or a path or https address of others for the same architecture.
        kwargs: for the model's constructor; with another `img_size`, positions are resized.
    Raises:
        UserError: if there is no such backbone, or weights cannot be had or do not fit.
    """
    settings = find(name).settings
    arguments = {
        "img_size": settings["crops.global_crops_size"],
        "patch_size": settings["student.patch_size"],
        "init_values": settings["student.layerscale"],
        "ffn_layer": settings["student.ffn_layer"],
        "block_chunks": settings["student.block_chunks"],
        "num_register_tokens": settings["student.num_register_tokens"],
        "interpolate_antialias": settings["student.interpolate_antialias"],
        "interpolate_offset": settings["student.interpolate_offset"],
    }
    model = ARCHITECTURES[settings["student.arch"]](**{**arguments, **kwargs})
    if pretrained:
        load_pretrained_backbone(model, resolve_weights(source_of(weights, Weights, name)))
    return model


def source_of(weights: Enum | str | Path, known: type[Enum], published: str) -> str | Path:
    """What `resolve_weights` is to be asked for: the published weights where they are meant, else what was given.

    Args:
        weights: a member of `known` or its name, an https address, or a path.
        published: the name that the members stand for.
    Raises:
        UserError: for a name that is neither.
    """
    if isinstance(weights, known) or weights in known.__members__:
        return published
    if isinstance(weights, Path) or is_url(str(weights)) or path_exists(str(weights)):
        return weights  # type: ignore[return-value]
    raise unknown_name("weights (nor is there such a file)", str(weights), known.__members__)


def _entry_point(name: str) -> Callable[..., DinoVisionTransformer]:
    def build(
        *, pretrained: bool = True, weights: Weights | str | Path = Weights.LVD142M, **kwargs: Any
    ) -> DinoVisionTransformer:
        return load_backbone(name, pretrained=pretrained, weights=weights, **kwargs)

    size = find(name).settings["student.arch"].removeprefix("vit_")
    registers = " with registers" if name.endswith("_reg") else ""
    build.__name__ = build.__qualname__ = name
    build.__doc__ = (
        f"DINOv2 ViT-{size}/14{registers}, pretrained unless pretrained=False; `weights` may name a file or an https "
        "address instead of DINOv2's weights. Further arguments go to the model."
    )
    return build


dinov2_vits14 = _entry_point("dinov2_vits14")
dinov2_vitb14 = _entry_point("dinov2_vitb14")
dinov2_vitl14 = _entry_point("dinov2_vitl14")
dinov2_vitg14 = _entry_point("dinov2_vitg14")
dinov2_vits14_reg = _entry_point("dinov2_vits14_reg")
dinov2_vitb14_reg = _entry_point("dinov2_vitb14_reg")
dinov2_vitl14_reg = _entry_point("dinov2_vitl14_reg")
dinov2_vitg14_reg = _entry_point("dinov2_vitg14_reg")
