"""Backbones to be evaluated: vision transformers as a configuration describes them, and trunks of others."""

from typing import Any

from torch import nn

from dinov2.models.build import build_model_from_cfg, check_names
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import LoadOptions, load_pretrained_backbone

from .resolve import check_weights, resolve_weights
from .trunks import TRUNKS, ResNet50Trunk, load_strictly

FrozenBackbone = DinoVisionTransformer | ResNet50Trunk


def check_pretrained(student: Any) -> None:
    """Check what the `pretrained_*` keys of the `student` section of a configuration name, before anything is built.

    Raises:
        UserError: if there is no such thing.
    """
    LoadOptions.from_config(student)
    if student.pretrained_weights:
        check_weights(student.pretrained_weights)


def check_frozen_backbone(student: Any) -> None:
    """Check what the `student` section of a configuration names; `student.arch` may also be one of `TRUNKS`.

    Raises:
        UserError: if there is no such thing.
    """
    if student.arch not in TRUNKS:
        check_names(student)
    check_pretrained(student)


def load_pretrained(model: nn.Module, student: Any) -> None:
    """Load what the `pretrained_*` keys of the `student` section name into a backbone, if they name anything.

    Raises:
        UserError: if it cannot be had, or does not fit.
    """
    if student.pretrained_weights:
        options = LoadOptions.from_config(student)
        load_pretrained_backbone(model, resolve_weights(student.pretrained_weights), options=options)


def build_frozen_backbone(cfg: Any, weights: str) -> FrozenBackbone:
    """A backbone as a configuration describes it.

    Args:
        weights: as `resolve_weights` understands them; random ones where this is empty.
    Raises:
        UserError: if weights cannot be had, or do not fit.
    """
    if cfg.student.arch in TRUNKS:
        trunk = TRUNKS[cfg.student.arch]()
        if weights:
            load_strictly(trunk, resolve_weights(weights))
        return trunk
    backbone, _ = build_model_from_cfg(cfg, only_teacher=True)
    if weights:
        load_pretrained_backbone(backbone, resolve_weights(weights), options=LoadOptions.from_config(cfg.student))
    return backbone
