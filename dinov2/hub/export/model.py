"""The backbone to be exported, at the image size it is wanted for."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dinov2.errors import UserError
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import LoadOptions, build_backbone_like, load_pretrained_backbone, read_networks
from dinov2.models.weights.positions import fit_positions

from .origin import Origin


def load_model(
    origin: Origin, network: str, *, image_size: int | None = None, num_heads: int | None = None
) -> tuple[str, DinoVisionTransformer]:
    """A network's backbone in float32 on the CPU, in evaluation mode.

    Args:
        image_size: pixels that positions are resized for, by the rule that the model was trained with.
        num_heads: see `build_backbone_like`.
    Returns:
        "teacher", "student" or "", as the file calls the network, and the backbone.
    Raises:
        UserError: if the file lacks the network or parts of it, or the size is no multiple of the patch size.
    """
    name, model = _untrained(origin.path, network, num_heads)
    load_pretrained_backbone(model, origin.path, options=LoadOptions(network=network))
    _set_resizing(model, origin.settings)
    if model.patch_embed.in_chans != 3:
        raise UserError(f"{origin.path} is for images of {model.patch_embed.in_chans} channels; exports are for RGB")
    if image_size is not None and image_size != image_size_of(model):
        model = _resized(model, image_size)
    return name, model.requires_grad_(False).eval()


def _untrained(path: Path, network: str, num_heads: int | None) -> tuple[str, DinoVisionTransformer]:
    """What the file calls the network, and a backbone like it; the weights read for it are let go of."""
    networks = read_networks(path).networks
    name = network if network in networks else ""
    if name not in networks:
        raise UserError(f"{path} has {' and '.join(networks)}, and no {network}; choose with --network")
    return name, build_backbone_like(networks[name].backbone, num_heads=num_heads)


def image_size_of(model: DinoVisionTransformer) -> int:
    """Pixels along a side of the image that the stored positions are for."""
    return int((model.pos_embed.shape[1] - 1) ** 0.5 + 0.5) * model.patch_size


def _set_resizing(model: DinoVisionTransformer, settings: Mapping[str, Any]) -> None:
    """Let positions be resized as in the training, where its configuration is known."""
    model.interpolate_antialias = bool(settings.get("student.interpolate_antialias", model.interpolate_antialias))
    model.interpolate_offset = float(settings.get("student.interpolate_offset", model.interpolate_offset))


def _resized(model: DinoVisionTransformer, image_size: int) -> DinoVisionTransformer:
    """The model with positions for another image size stored in it."""
    if image_size < model.patch_size or image_size % model.patch_size:
        raise UserError(f"--image-size {image_size} is no multiple of the patch size, {model.patch_size}")
    antialias, offset = model.interpolate_antialias, model.interpolate_offset
    count = (image_size // model.patch_size) ** 2
    state = model.state_dict()
    state["pos_embed"] = fit_positions(state["pos_embed"], count, antialias=antialias, offset=offset)
    other = build_backbone_like(state, num_heads=model.num_heads)
    other.load_state_dict(state)
    other.interpolate_antialias, other.interpolate_offset = antialias, offset
    return other
