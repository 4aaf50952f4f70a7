"""DINOv2's backbones with their linear classifiers of ImageNet's 1000 classes."""

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.errors import UserError
from dinov2.models.vision_transformer import DinoVisionTransformer

from .backbones import load_backbone, source_of
from .resolve import resolve_weights
from .trunks import load_strictly

NUM_CLASSES = 1000


class Weights(Enum):
    """What the classifiers were trained on."""

    IMAGENET1K = "IMAGENET1K"


class LinearClassifier(nn.Module):
    """A backbone and a linear layer on its class tokens and the mean of its patch tokens."""

    def __init__(self, backbone: DinoVisionTransformer, layers: int) -> None:
        """Build it, with a new linear layer.

        Args:
            layers: how many last blocks give class tokens, 1 or 4.
        """
        super().__init__()
        self.backbone = backbone
        self.layers = layers
        self.linear_head = nn.Linear((1 + layers) * backbone.embed_dim, NUM_CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W) -> scores (B, 1000)."""
        outputs: Any = self.backbone.get_intermediate_layers(x, n=self.layers, return_class_token=True)
        patches = outputs[-1][0]  # (B, N, D)
        class_tokens = [class_token for _, class_token in outputs]  # (B, D) each
        return self.linear_head(torch.cat((*class_tokens, patches.mean(dim=1)), dim=1))


def load_classifier(
    name: str,
    *,
    layers: int = 4,
    pretrained: bool = True,
    weights: Weights | str | Path = Weights.IMAGENET1K,
    **kwargs: Any,
) -> LinearClassifier:
    """The classifier on a backbone.

    Args:
        name: of the backbone, such as dinov2_vits14.
        layers: 1 or 4, see `LinearClassifier`.
        pretrained: with DINOv2's backbone and classifier; else both initialised at random.
        weights: of the classifier: the published ones, or a path or https address of others.
        kwargs: for the backbone; see `load_backbone`.
    Raises:
        UserError: for another number of layers, or weights that cannot be had or do not fit.
    """
    if layers not in (1, 4):
        raise UserError(f"layers={layers}: DINOv2's classifiers see 1 or 4 blocks")
    model = LinearClassifier(load_backbone(name, pretrained=pretrained, **kwargs), layers)
    if pretrained:
        load_strictly(model.linear_head, resolve_weights(source_of(weights, Weights, f"{name}_linear{layers}")))
    return model


def _entry_point(backbone: str) -> Callable[..., LinearClassifier]:
    def build(
        *,
        layers: int = 4,
        pretrained: bool = True,
        weights: Weights | str | Path = Weights.IMAGENET1K,
        **kwargs: Any,
    ) -> LinearClassifier:
        return load_classifier(backbone, layers=layers, pretrained=pretrained, weights=weights, **kwargs)

    build.__name__ = build.__qualname__ = f"{backbone}_lc"
    build.__doc__ = (
        f"{backbone} with the linear classifier of ImageNet-1k on the class tokens of its last 1 or 4 (`layers`) "
        "blocks and the mean patch token; pretrained unless pretrained=False."
    )
    return build


dinov2_vits14_lc = _entry_point("dinov2_vits14")
dinov2_vitb14_lc = _entry_point("dinov2_vitb14")
dinov2_vitl14_lc = _entry_point("dinov2_vitl14")
dinov2_vitg14_lc = _entry_point("dinov2_vitg14")
dinov2_vits14_reg_lc = _entry_point("dinov2_vits14_reg")
dinov2_vitb14_reg_lc = _entry_point("dinov2_vitb14_reg")
dinov2_vitl14_reg_lc = _entry_point("dinov2_vitl14_reg")
dinov2_vitg14_reg_lc = _entry_point("dinov2_vitg14_reg")
