"""From a configuration to student and teacher backbones."""

from importlib.util import find_spec
from typing import Any

from dinov2.errors import UserError, unknown_name
from dinov2.layers import Attention, DINOHead

from .vision_transformer import ARCHITECTURES, FFN_LAYERS, DinoVisionTransformer


def build_model(args: Any, only_teacher: bool = False, img_size: int = 224):
    """Build backbones as `cfg.student` describes them.

    Args:
        args: the `student` section of a configuration.
        only_teacher: leave the student out.
        img_size: pixels of a global crop.
    Returns:
        (teacher, width), or (student, teacher, width).
    Raises:
        UserError: for names that are not known.
    """
    check_names(args)
    name = args.arch.removesuffix("_memeff")
    kwargs = {
        "img_size": img_size,
        "patch_size": args.patch_size,
        "init_values": args.layerscale,
        "ffn_layer": args.ffn_layer,
        "block_chunks": args.block_chunks,
        "qkv_bias": args.qkv_bias,
        "proj_bias": args.proj_bias,
        "ffn_bias": args.ffn_bias,
        "num_register_tokens": args.num_register_tokens,
        "interpolate_offset": args.interpolate_offset,
        "interpolate_antialias": args.interpolate_antialias,
    }
    backend = getattr(args, "attention_backend", "sdpa")
    teacher = _use_backend(ARCHITECTURES[name](**kwargs), backend)
    if only_teacher:
        return teacher, teacher.embed_dim
    drop_path = {"drop_path_rate": args.drop_path_rate, "drop_path_uniform": args.drop_path_uniform}
    student = _use_backend(ARCHITECTURES[name](**kwargs, **drop_path), backend)
    return student, teacher, student.embed_dim


def check_names(args: Any) -> None:
    """Check what the `student` section of a configuration names, before anything is built.

    Raises:
        UserError: for an unknown architecture or feed-forward layer.
    """
    if args.arch.removesuffix("_memeff") not in ARCHITECTURES:
        raise unknown_name("student.arch", args.arch, ARCHITECTURES)
    if args.ffn_layer not in FFN_LAYERS:
        raise unknown_name("student.ffn_layer", args.ffn_layer, FFN_LAYERS)
    if getattr(args, "attention_backend", "sdpa") == "xformers" and find_spec("xformers") is None:
        raise UserError("student.attention_backend=xformers needs the package: pip install xformers")


def _use_backend(model: DinoVisionTransformer, backend: str) -> DinoVisionTransformer:
    for module in model.modules():
        if isinstance(module, Attention):
            module.backend = backend
    return model


def build_model_from_cfg(cfg: Any, only_teacher: bool = False):
    """`build_model` for a whole configuration; positions are those of a global crop."""
    return build_model(cfg.student, only_teacher=only_teacher, img_size=cfg.crops.global_crops_size)


def build_head(section: Any, embed_dim: int) -> DINOHead:
    """A head for tokens of width `embed_dim`, as the `dino` or `ibot` section of a configuration describes it."""
    return DINOHead(
        embed_dim,
        section.head_n_prototypes,
        hidden_dim=section.head_hidden_dim,
        bottleneck_dim=section.head_bottleneck_dim,
        nlayers=section.head_nlayers,
    )
