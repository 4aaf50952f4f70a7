"""What architecture a state dict is of, from its names and shapes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import partial

from torch import Tensor

from dinov2.errors import UserError
from dinov2.layers import Block, MemEffAttention

from ..vision_transformer import DinoVisionTransformer

# Width and depth -> name and attention heads, which shapes do not tell.
_KNOWN = {
    (192, 12): ("vit_tiny", 3),
    (384, 12): ("vit_small", 6),
    (768, 12): ("vit_base", 12),
    (1024, 24): ("vit_large", 16),
    (1536, 40): ("vit_giant2", 24),
}
# The setting that decides about each property, for messages.
_SETTINGS = {
    "arch": "student.arch",
    "patch_size": "student.patch_size",
    "in_chans": "channels of an image",
    "ffn_layer": "student.ffn_layer",
    "hidden": "width of the feed-forward layer",
    "num_registers": "student.num_register_tokens",
    "layerscale": "student.layerscale",
    "qkv_bias": "student.qkv_bias",
    "proj_bias": "student.proj_bias",
    "ffn_bias": "student.ffn_bias",
}


@dataclass(frozen=True)
class Architecture:
    """What a backbone's weights say about it; None or 0 where the tensors that would say it are missing."""

    arch: str | None
    embed_dim: int
    depth: int
    patch_size: int | None
    in_chans: int | None
    ffn_layer: str | None  # "mlp" or "swiglu"
    hidden: int | None
    num_registers: int
    layerscale: bool
    qkv_bias: bool
    proj_bias: bool
    ffn_bias: bool
    grid: int | None  # positions along a side of the image

    def __str__(self) -> str:
        if not self.embed_dim:
            return "no whole vision transformer"
        name = self.arch or f"a vision transformer of width {self.embed_dim} with {self.depth} blocks"
        details = [f"{self.grid}x{self.grid} positions"] if self.grid else []
        details += [self.ffn_layer] if self.ffn_layer else []
        details += [f"{self.num_registers} registers"] if self.num_registers else []
        details += ["LayerScale"] if self.layerscale else []
        return f"{name}/{self.patch_size or '?'} ({', '.join(details)})"

    def differences(self, other: "Architecture") -> list[str]:
        """Where another backbone differs, as sentences that name the setting; grids can always be resized."""
        if (self.embed_dim, self.depth) != (other.embed_dim, other.depth):
            return [f"student.arch: the file is {self}, the model {other}"]
        found = []
        for key in (one.name for one in fields(self) if one.name in _SETTINGS):
            mine, theirs = getattr(self, key), getattr(other, key)
            if mine != theirs and not (key == "hidden" and self.ffn_layer != other.ffn_layer):
                found.append(f"{_SETTINGS[key]}: {_shown(mine)} in the file, {_shown(theirs)} in the model")
        return found


def _shown(value: object) -> str:
    return {"True": "there", "False": "absent", "None": "unknown"}.get(str(value), str(value))


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """Read the architecture off a backbone's tensors under DINOv2's names, blocks not chunked; some may be missing."""
    embed_dim = state["norm.weight"].shape[0] if "norm.weight" in state else 0
    blocks = {int(name.split(".")[1]) for name in state if name.startswith("blocks.") and name.split(".")[1].isdigit()}
    depth = max(blocks) + 1 if blocks else 0
    patches = state.get("patch_embed.proj.weight")  # (D, C, p, p)
    registers = state.get("register_tokens")  # (1, R, D)
    gates, first = state.get("blocks.0.mlp.w12.weight"), state.get("blocks.0.mlp.fc1.weight")
    return Architecture(
        arch=_KNOWN.get((embed_dim, depth), (None, 0))[0],
        embed_dim=embed_dim,
        depth=depth,
        patch_size=None if patches is None else patches.shape[-1],
        in_chans=None if patches is None else patches.shape[1],
        ffn_layer="swiglu" if gates is not None else "mlp" if first is not None else None,
        hidden=gates.shape[0] // 2 if gates is not None else first.shape[0] if first is not None else None,
        num_registers=0 if registers is None else registers.shape[1],
        layerscale="blocks.0.ls1.gamma" in state,
        qkv_bias="blocks.0.attn.qkv.bias" in state,
        proj_bias="blocks.0.attn.proj.bias" in state,
        ffn_bias=any(f"blocks.0.mlp.{name}.bias" in state for name in ("fc2", "w3")),
        grid=_side(state.get("pos_embed")),
    )


def _side(positions: Tensor | None) -> int | None:
    """M of positions (1, 1 + M*M, D)."""
    if positions is None or positions.ndim != 3:
        return None
    side = math.isqrt(positions.shape[1] - 1)
    return side if side and side * side == positions.shape[1] - 1 else None


def build_backbone_like(state: Mapping[str, Tensor], *, num_heads: int | None = None) -> DinoVisionTransformer:
    """A backbone of the architecture of some weights, which it does not have yet.

    Positions are resized as the published models resize them: by DINOv2's offset of 0.1, with registers by size and
    with a low-pass filter.

    Args:
        state: of a whole backbone under DINOv2's names, blocks not chunked.
        num_heads: attention heads of one that is none of DINOv2's sizes.
    Raises:
        UserError: if tensors are missing that say what it is.
    """
    found = architecture_of(state)
    if not (found.embed_dim and found.depth and found.patch_size and found.in_chans and found.hidden and found.grid):
        raise UserError(f"the architecture of these weights cannot be told; they look like {found}")
    if found.arch is None and num_heads is None:
        raise UserError(f"how many attention heads {found} has cannot be told from its weights; give num_heads")
    width = found.hidden * 1.5 if found.ffn_layer == "swiglu" else found.hidden
    ratio = (width + 0.5) / found.embed_dim  # the model cuts off what is behind the point
    return DinoVisionTransformer(
        img_size=found.grid * found.patch_size,
        patch_size=found.patch_size,
        in_chans=found.in_chans,
        embed_dim=found.embed_dim,
        depth=found.depth,
        num_heads=num_heads or _KNOWN[found.embed_dim, found.depth][1],
        mlp_ratio=ratio,
        qkv_bias=found.qkv_bias,
        proj_bias=found.proj_bias,
        ffn_bias=found.ffn_bias,
        init_values=1.0 if found.layerscale else None,
        block_fn=partial(Block, attn_class=MemEffAttention),
        ffn_layer="swiglufused" if found.ffn_layer == "swiglu" else "mlp",
        block_chunks=0,
        num_register_tokens=found.num_registers,
        interpolate_antialias=found.num_registers > 0,
        interpolate_offset=0.0 if found.num_registers else 0.1,
    )
