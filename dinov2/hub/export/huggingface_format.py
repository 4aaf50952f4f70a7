"""Models of transformers: `Dinov2Model`, with registers `Dinov2WithRegistersModel`."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.errors import UserError
from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import Architecture, architecture_of, to_huggingface, unchunked
from dinov2.utils.atomic import write_text

from .completing import with_all_parts
from .formats import ExportFormat, Notes, json_text, resizing_note, same_rule
from .tokens import Tokens

WEIGHTS = "model.safetensors"

_USAGE = """\
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoModel

folder = "."  # or "OWNER/NAME" once it is on Hugging Face
processor = AutoImageProcessor.from_pretrained(folder)
model = AutoModel.from_pretrained(folder).eval()
images = processor(Image.open("tile.png"), return_tensors="pt")["pixel_values"]  # (1, 3, {size}, {size})
with torch.inference_mode():
    tokens = model(images).last_hidden_state
cls, patches = tokens[:, 0], tokens[:, 1 + getattr(model.config, "num_register_tokens", 0) :]
"""

_CAUTIONS = """\
- Give the processor 8-bit images: floats in 0..1 are divided by 255 again (`do_rescale=False` keeps them).
- The processor scales the shorter side to {size} pixels and cuts out the centre. Without it, of sides that are no
  multiples of {patch} pixels the last rows and columns are never seen.
- `output_attentions=True` gives maps after `model.set_attn_implementation("eager")`, else an empty tuple.
- transformers 5 names layers `q_proj`, `k_proj`, `v_proj`, `o_proj` that the file, like version 4, names `query`,
  `key`, `value`, `dense`: `from_pretrained` knows both, `load_state_dict` and hooks by name do not.
- Weights keep the type of the file, here float32. Saved as float16 they stay so, and images are rounded to it.
"""


class HuggingFaceFormat(ExportFormat):
    """`model.safetensors`, `config.json` and `preprocessor_config.json`, as on a model page of Hugging Face."""

    loaded_by = "transformers"
    requires = ("transformers",)
    card_library = "transformers"
    cautions = _CAUTIONS

    def write(self, model: DinoVisionTransformer, folder: Path, notes: Notes) -> None:
        """Weights under the names that every version reads, and how model and images are made."""
        from safetensors.torch import save_file

        state = with_all_parts({unchunked(name): tensor for name, tensor in model.state_dict().items()})
        tensors = {name: tensor.contiguous() for name, tensor in to_huggingface(state).items()}
        write_text(folder / "config.json", json_text(_configuration(architecture_of(state), notes)))
        save_file(tensors, folder / WEIGHTS, metadata={"format": "pt", **notes.metadata})
        write_text(folder / "preprocessor_config.json", json_text(_preprocessing(notes)))

    def load(self, folder: Path) -> Callable[[Tensor], Tokens]:
        """By `AutoModel.from_pretrained`; the network is not used.

        Raises:
            UserError: if the library misses tensors, or knows nothing of some.
        """
        from transformers import AutoModel

        model, report = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        faults = {what: sorted(names) for what, names in report.items() if names}
        if faults:
            raise UserError(f"transformers does not load the export completely: {faults}")
        first = 1 + getattr(model.config, "num_register_tokens", 0)
        model.eval()

        def compute(images: Tensor) -> Tokens:
            tokens = model(images).last_hidden_state  # (B, 1 + R + N, D)
            return Tokens(tokens[:, 0], tokens[:, first:])

        return compute

    def usage(self, notes: Notes) -> str:
        """By the library's own classes for any model."""
        return _USAGE.format(size=notes.image_size)

    def other_sizes(self, model: DinoVisionTransformer) -> str:
        """Each of the two classes has its own rule."""
        filtered = model.num_register_tokens > 0
        return resizing_note(
            f"At other sizes `Dinov2{'WithRegisters' if filtered else ''}Model`",
            f"by size, {'with' if filtered else 'without'} a low-pass filter",
            alike=same_rule(model, antialias=filtered),
        )


def _configuration(found: Architecture, notes: Notes) -> dict[str, Any]:
    registers = found.num_registers > 0
    return {
        "architectures": ["Dinov2WithRegistersModel" if registers else "Dinov2Model"],
        "model_type": "dinov2_with_registers" if registers else "dinov2",
        "hidden_size": found.embed_dim,
        "num_hidden_layers": found.depth,
        "num_attention_heads": notes.num_heads,
        "mlp_ratio": _ratio(found),
        "use_swiglu_ffn": found.ffn_layer == "swiglu",
        "hidden_act": "gelu",
        "layer_norm_eps": 1e-6,
        "layerscale_value": 1.0,
        "qkv_bias": True,
        "image_size": notes.image_size,
        "patch_size": found.patch_size,
        "num_channels": 3,
        **({"num_register_tokens": found.num_registers} if registers else {}),
    }


def _ratio(found: Architecture) -> int:
    """The whole number by which transformers multiplies the width; it makes two thirds of it for a SwiGLU.

    Raises:
        UserError: if there is none.
    """
    for ratio in range(1, 17):
        width = found.embed_dim * ratio
        if found.ffn_layer == "swiglu":
            width = (int(width * 2 / 3) + 7) // 8 * 8
        if width == found.hidden:
            return ratio
    raise UserError(
        f"transformers has no DINOv2 with feed-forward layers of width {found.hidden} for tokens of width "
        f"{found.embed_dim}: only whole multiples, or two thirds of them for a SwiGLU. Export for timm instead"
    )


def _preprocessing(notes: Notes) -> dict[str, Any]:
    """Shorter side to the image size, then the centre, as evaluations here show tiles of that size."""
    return {
        "image_processor_type": "BitImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": notes.image_size},
        "resample": 3,  # bicubic
        "do_center_crop": True,
        "crop_size": {"height": notes.image_size, "width": notes.image_size},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(notes.mean),
        "image_std": list(notes.std),
    }
