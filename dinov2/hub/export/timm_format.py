"""Models of timm: `vit_*_patch14_dinov2`, with other sizes and settings as its configuration file says."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import Architecture, architecture_of, to_timm, unchunked
from dinov2.utils.atomic import write_text

from .completing import with_all_parts
from .formats import ExportFormat, Notes, json_text, resizing_note, same_rule
from .tokens import Tokens

WEIGHTS = "model.safetensors"
_SIZES = {"vit_small": "small", "vit_base": "base", "vit_large": "large", "vit_giant2": "giant"}

_USAGE = """\
import timm
import torch
from PIL import Image

model = timm.create_model("local-dir:.", pretrained=True).eval()  # "hf-hub:OWNER/NAME" once it is on Hugging Face
config = timm.data.resolve_model_data_config(model)
transform = timm.data.create_transform(**config, is_training=False)
images = transform(Image.open("tile.png").convert("RGB"))[None]  # (1, 3, {notes.image_size}, {notes.image_size})
with torch.inference_mode():
    tokens = model.forward_features(images)
cls, patches = tokens[:, 0], tokens[:, model.num_prefix_tokens :]
"""

_CAUTIONS = """\
- `local-dir:` and `hf-hub:` take normalisation and image size from `config.json`. The name of one of timm's models with
  `checkpoint_path=` does not: it keeps ImageNet's normalisation and 518 pixels.
- The transform is for PIL images; it scales the shorter side to {size} pixels and cuts out the centre, with
  `img_size=S` too. `timm.data.resolve_data_config({{"input_size": (3, S, S)}}, model=model)` is the one for S.
- Of sides that are no multiples of {patch} pixels `img_size=` never sees the last rows and columns;
  `dynamic_img_size=True` refuses them, and with `dynamic_img_pad=True` adds zeros at the right and at the bottom.
"""


class TimmFormat(ExportFormat):
    """`model.safetensors` and `config.json`, as on a model page of timm."""

    loaded_by = "timm"
    requires = ("timm",)
    card_library = "timm"
    cautions = _CAUTIONS

    def write(self, model: DinoVisionTransformer, folder: Path, notes: Notes) -> None:
        """Weights under timm's names, and how its model is built."""
        from safetensors.torch import save_file

        state = with_all_parts({unchunked(name): tensor for name, tensor in model.state_dict().items()})
        tensors = {name: tensor.contiguous() for name, tensor in to_timm(state).items()}
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **notes.metadata})
        write_text(folder / "config.json", json_text(_configuration(architecture_of(state), notes)))

    def load(self, folder: Path) -> Callable[[Tensor], Tokens]:
        """By `timm.create_model`, as for any local folder."""
        import timm

        model: Any = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()

        def compute(images: Tensor) -> Tokens:
            tokens = model.forward_features(images)  # (B, 1 + R + N, D)
            return Tokens(tokens[:, 0], tokens[:, model.num_prefix_tokens :])

        return compute

    def usage(self, notes: Notes) -> str:
        """By `create_model`; the transform comes from the configuration file."""
        return _USAGE.format(notes=notes)

    def other_sizes(self, model: DinoVisionTransformer) -> str:
        """timm resizes where it is asked to, always with a low-pass filter."""
        return resizing_note(
            "With `img_size=...` or `dynamic_img_size=True` in `create_model`, timm",
            "by size, with a low-pass filter",
            alike=same_rule(model, antialias=True),
        )


def timm_name(found: Architecture) -> str:
    """The registered model that an architecture is nearest to; `_model_arguments` has what differs.

    Only timm's giant has a SwiGLU, and takes other widths and depths.
    """
    size = "giant" if found.ffn_layer == "swiglu" else _SIZES.get(found.arch or "", "small")
    return f"vit_{size}_patch14_{'reg4_' if found.num_registers else ''}dinov2"


def _model_arguments(found: Architecture, notes: Notes) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "img_size": notes.image_size,
        "patch_size": found.patch_size,
        "embed_dim": found.embed_dim,
        "depth": found.depth,
        "num_heads": notes.num_heads,
        "mlp_ratio": mlp_ratio(found),
        "num_classes": 0,
    }
    return {**arguments, **({"reg_tokens": found.num_registers} if found.num_registers else {})}


def mlp_ratio(found: Architecture) -> float:
    """Width of the first feed-forward layer, gates included, over that of tokens.

    timm multiplies and cuts off what is behind the point; where rounding would cost a unit, half a unit is added.
    """
    assert found.hidden is not None  # of a whole backbone
    rows = found.hidden * (2 if found.ffn_layer == "swiglu" else 1)
    ratio = rows / found.embed_dim
    return ratio if int(found.embed_dim * ratio) == rows else (rows + 0.5) / found.embed_dim


def _configuration(found: Architecture, notes: Notes) -> dict[str, Any]:
    return {
        "architecture": timm_name(found),
        "num_classes": 0,
        "num_features": found.embed_dim,
        "global_pool": "token",
        "model_args": _model_arguments(found, notes),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, notes.image_size, notes.image_size],
            "fixed_input_size": True,
            "interpolation": "bicubic",
            "crop_pct": 1.0,
            "crop_mode": "center",
            "mean": list(notes.mean),
            "std": list(notes.std),
            "num_classes": 0,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": "head",
        },
    }
