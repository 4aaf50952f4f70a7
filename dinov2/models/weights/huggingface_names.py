"""The names that `Dinov2Model` and `Dinov2WithRegistersModel` of transformers have in files.

Queries, keys and values have a matrix each there. transformers 5 gives some modules other names in memory
(`attention.q_proj`, `mlp.gate_proj`) and translates when it reads and writes; both sets are understood here, and the
files', which every version reads, are written.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from .names import renamed, unchunked

_LAYER = r"encoder.layer.\1."
_TO_FILES = (
    (r"^(cls_token|mask_token|register_tokens)$", r"embeddings.\1"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^norm\.", "layernorm."),
    (r"^blocks\.(\d+)\.ls([12])\.gamma$", _LAYER + r"layer_scale\2.lambda1"),
    (r"^blocks\.(\d+)\.attn\.proj\.", _LAYER + "attention.output.dense."),
    (r"^blocks\.(\d+)\.mlp\.w12\.", _LAYER + "mlp.weights_in."),
    (r"^blocks\.(\d+)\.mlp\.w3\.", _LAYER + "mlp.weights_out."),
    (r"^blocks\.(\d+)\.", _LAYER),
)
_FROM_FILES = (
    (r"^(dinov2|dinov2_with_registers)\.", ""),
    (r"^embeddings\.(cls_token|mask_token|register_tokens)$", r"\1"),
    (r"^embeddings\.position_embeddings$", "pos_embed"),
    (r"^embeddings\.patch_embeddings\.projection\.", "patch_embed.proj."),
    (r"^layernorm\.", "norm."),
    (r"^encoder\.layer\.", "blocks."),
    (r"^(blocks\.\d+)\.layer_scale([12])\.lambda1$", r"\1.ls\2.gamma"),
    (r"^(blocks\.\d+)\.attention\.(output\.dense|o_proj)\.", r"\1.attn.proj."),
    (r"^(blocks\.\d+)\.attention\.(attention\.)?(query|q_proj)\.", r"\1.attn.q."),
    (r"^(blocks\.\d+)\.attention\.(attention\.)?(key|k_proj)\.", r"\1.attn.k."),
    (r"^(blocks\.\d+)\.attention\.(attention\.)?(value|v_proj)\.", r"\1.attn.v."),
    (r"^(blocks\.\d+)\.attention\.(attention\.)?qkv\.", r"\1.attn.qkv."),
    (r"^(blocks\.\d+)\.mlp\.weights_in\.", r"\1.mlp.w12."),
    (r"^(blocks\.\d+)\.mlp\.(weights_out|down_proj)\.", r"\1.mlp.w3."),
)
# Tensors that DINOv2 keeps one above the other, by the ending of its name.
_STACKS = {"attn.qkv": ("attn.q", "attn.k", "attn.v"), "mlp.w12": ("mlp.gate_proj", "mlp.up_proj")}


def to_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A backbone's tensors under the names of a model file of transformers.

    Args:
        state: of a `DinoVisionTransformer`, chunked or not.
    Returns:
        What `Dinov2Model.from_pretrained` reads, or with registers `Dinov2WithRegistersModel.from_pretrained`, from
        `model.safetensors` beside the model's `config.json`.
    """
    named = renamed({unchunked(name): tensor for name, tensor in state.items()}, _TO_FILES)
    result: dict[str, Tensor] = {}
    for name, tensor in named.items():
        stacked = re.fullmatch(r"(.*\.)attn\.qkv\.(weight|bias)", name)
        if not stacked:
            result[name] = tensor
            continue
        for part, rows in zip(("query", "key", "value"), tensor.chunk(3)):  # (D, D) or (D,) each
            result[f"{stacked[1]}attention.attention.{part}.{stacked[2]}"] = rows.contiguous()
    return result


def from_huggingface(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a `Dinov2Model` or `Dinov2WithRegistersModel` under DINOv2's names.

    Args:
        state: of the model, of a model around it (`dinov2.`, `dinov2_with_registers.`), or of its file, with queries,
            keys and values apart or together.
    Returns:
        Tensors under DINOv2's names, blocks not chunked.
    """
    named = renamed(state, _FROM_FILES)
    for name in list(named):
        for whole, parts in _STACKS.items():
            found = re.fullmatch(rf"(.*\.){re.escape(parts[0])}\.(weight|bias)", name)
            if not found:
                continue
            names = [f"{found[1]}{part}.{found[2]}" for part in parts]
            if all(part in named for part in names):
                named[f"{found[1]}{whole}.{found[2]}"] = torch.cat([named.pop(part) for part in names])
    return named


def is_huggingface(names: Mapping[str, Tensor]) -> bool:
    """Whether tensors have the names of a DINOv2 of transformers, owners already removed."""
    return "embeddings.cls_token" in names or any(name.startswith("encoder.layer.") for name in names)
