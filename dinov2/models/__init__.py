"""Backbones by name, and student and teacher as a configuration describes them."""

from .build import build_model, build_model_from_cfg
from .vision_transformer import DinoVisionTransformer

__all__ = ["DinoVisionTransformer", "build_model", "build_model_from_cfg"]
