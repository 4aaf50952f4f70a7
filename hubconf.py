"""Entry points of torch.hub, DINOv2's names.

    torch.hub.load("path/to/this/repository", "dinov2_vits14", source="local")

`weights` names the published weights (the default), a file, such as a teacher export, or an https address.
"""

from dinov2.hub.backbones import (
    dinov2_vitb14,
    dinov2_vitb14_reg,
    dinov2_vitg14,
    dinov2_vitg14_reg,
    dinov2_vitl14,
    dinov2_vitl14_reg,
    dinov2_vits14,
    dinov2_vits14_reg,
)
from dinov2.hub.classifiers import (
    dinov2_vitb14_lc,
    dinov2_vitb14_reg_lc,
    dinov2_vitg14_lc,
    dinov2_vitg14_reg_lc,
    dinov2_vitl14_lc,
    dinov2_vitl14_reg_lc,
    dinov2_vits14_lc,
    dinov2_vits14_reg_lc,
)

dependencies = ["torch", "torchvision", "safetensors", "tqdm"]

__all__ = [
    "dinov2_vitb14",
    "dinov2_vitb14_lc",
    "dinov2_vitb14_reg",
    "dinov2_vitb14_reg_lc",
    "dinov2_vitg14",
    "dinov2_vitg14_lc",
    "dinov2_vitg14_reg",
    "dinov2_vitg14_reg_lc",
    "dinov2_vitl14",
    "dinov2_vitl14_lc",
    "dinov2_vitl14_reg",
    "dinov2_vitl14_reg_lc",
    "dinov2_vits14",
    "dinov2_vits14_lc",
    "dinov2_vits14_reg",
    "dinov2_vits14_reg_lc",
]
