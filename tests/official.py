"""Files as others publish them, made by rule from the public lists of keys: no model of this project takes part."""

import torch
from golden import normal
from torch import Tensor

# Width, depth, width of the feed-forward layer, and whether that is a SwiGLU.
SIZES = {
    "vit_small": (384, 12, 1536, False),
    "vit_base": (768, 12, 3072, False),
    "vit_large": (1024, 24, 4096, False),
    "vit_giant2": (1536, 40, 4096, True),
}
ENTRY_POINTS = {"s": "vit_small", "b": "vit_base", "l": "vit_large", "g": "vit_giant2"}


def official_shapes(
    arch: str = "vit_small", *, image: int = 518, patch: int = 14, registers: int = 0, layerscale: bool = True
) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a file of DINOv2."""
    width, depth, hidden, gated = SIZES[arch]
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + (image // patch) ** 2, width),
        **({"register_tokens": (1, registers, width)} if registers else {}),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, patch, patch),
        "patch_embed.proj.bias": (width,),
    }
    layers = {"attn.qkv": (3 * width, width), "attn.proj": (width, width)}
    layers |= {"mlp.w12": (2 * hidden, width), "mlp.w3": (width, hidden)} if gated else {}
    layers |= {} if gated else {"mlp.fc1": (hidden, width), "mlp.fc2": (width, hidden)}
    for i in range(depth):
        for norm in ("norm1", "norm2"):
            shapes |= {f"blocks.{i}.{norm}.weight": (width,), f"blocks.{i}.{norm}.bias": (width,)}
        for layer, shape in layers.items():
            shapes |= {f"blocks.{i}.{layer}.weight": shape, f"blocks.{i}.{layer}.bias": shape[:1]}
        shapes |= {f"blocks.{i}.ls{n}.gamma": (width,) for n in (1, 2) if layerscale}
    return {**shapes, "norm.weight": (width,), "norm.bias": (width,)}


def official_state(arch: str = "vit_small", *, tag: str = "official", **kwargs) -> dict[str, Tensor]:
    """A file's content; small tensors by name, large ones of zeros and ones that take no memory."""
    state = {}
    for name, shape in official_shapes(arch, **kwargs).items():
        large = len(shape) == 2 and shape[0] > 1
        state[name] = torch.full((1,), 0.01).expand(shape) if large else normal(f"{tag}:{name}", shape)
    return state
