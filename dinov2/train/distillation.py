"""A bigger teacher that does not change, for the student to learn its targets from.

Source: Oquab et al. 2023, "DINOv2", section 5: the training loop stays, the teacher is a frozen larger model, and a
moving average of the student is kept, which is what is exported. The student's heads score as many prototypes as the
teacher's, and both see patches of one size.
"""

from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from torch import nn

from dinov2.configs import complete_config, load_config_file
from dinov2.errors import UserError
from dinov2.models import build_head, build_model_from_cfg
from dinov2.models.weights import LoadOptions, load_pretrained_backbone, read_networks


def distils(cfg: Any) -> bool:
    """Whether a configuration asks for a frozen teacher."""
    return bool(cfg.distillation.config_file)


def read_teacher_config(cfg: Any) -> DictConfig:
    """The configuration of the frozen teacher.

    Raises:
        UserError: if it cannot be read, or student and teacher do not go together.
    """
    file = cfg.distillation.config_file
    teacher = complete_config(load_config_file(file))
    if not Path(cfg.distillation.weights).is_file():
        raise UserError(f"distillation.weights={cfg.distillation.weights!r}: there is no such file")
    for key, ours, theirs in (
        ("student.patch_size", cfg.student.patch_size, teacher.student.patch_size),
        ("dino.head_n_prototypes", cfg.dino.head_n_prototypes, teacher.dino.head_n_prototypes),
        ("ibot.separate_head", cfg.ibot.separate_head, teacher.ibot.separate_head),
        ("ibot.head_n_prototypes", *(_patch_prototypes(one) for one in (cfg, teacher))),
    ):
        if ours != theirs:
            raise UserError(
                f"{key} is {ours} here and {theirs} in {file}: a student learns from the scores of the teacher's heads "
                "for the same patches, so both need the same"
            )
    return teacher


def build_frozen_teacher(cfg: Any, *, separate_head: bool) -> nn.ModuleDict:
    """The teacher with its heads and weights, in evaluation mode.

    Args:
        cfg: the student's configuration.
        separate_head: whether patches have a head of their own.
    Raises:
        UserError: if its weights are not there, or not those of its configuration.
    """
    theirs = read_teacher_config(cfg)
    # Positions are of the crops that the student sees.
    theirs.crops.global_crops_size = cfg.crops.global_crops_size
    backbone, width = build_model_from_cfg(theirs, only_teacher=True)
    weights = cfg.distillation.weights
    load_pretrained_backbone(backbone, weights, options=LoadOptions(network="teacher"))
    heads = read_networks(weights).choose("teacher")[1].heads
    modules: dict[str, nn.Module] = {"backbone": backbone}
    for name, section in {"dino_head": theirs.dino, **({"ibot_head": theirs.ibot} if separate_head else {})}.items():
        if name not in heads:
            raise UserError(f"distillation.weights={weights} has no {name}; a teacher export has its heads")
        modules[name] = build_head(section, width)
        modules[name].load_state_dict(heads[name])
    return nn.ModuleDict(modules).requires_grad_(False).eval()


def _patch_prototypes(cfg: Any) -> int:
    """Prototypes that patches are scored on."""
    return int((cfg.ibot if cfg.ibot.separate_head else cfg.dino).head_n_prototypes)
