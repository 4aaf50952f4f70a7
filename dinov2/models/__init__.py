"""Backbones by name, student and teacher as a configuration describes them, and their heads."""

from .build import build_head, build_model, build_model_from_cfg
from .vision_transformer import DinoVisionTransformer

__all__ = ["DinoVisionTransformer", "build_head", "build_model", "build_model_from_cfg"]
