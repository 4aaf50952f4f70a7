"""What is compared: a model as a function from images to class and patch tokens."""

from typing import NamedTuple

from torch import Tensor, nn

from dinov2.models.vision_transformer import DinoVisionTransformer


class Tokens(NamedTuple):
    """Normalised output tokens: of the class (B, D), of patches (B, N, D)."""

    cls: Tensor
    patches: Tensor


class TokenModel(nn.Module):
    """A backbone with images (B, 3, H, W) in and `Tokens` out."""

    def __init__(self, backbone: DinoVisionTransformer) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tokens:
        """Images (B, 3, H, W) -> class tokens (B, D), patch tokens (B, N, D)."""
        features = self.backbone.forward_features(images)
        return Tokens(features["x_norm_clstoken"], features["x_norm_patchtokens"])
