"""DINOv2's own names, in a file that cannot run code."""

from collections.abc import Callable
from pathlib import Path

from torch import Tensor

from dinov2.models.vision_transformer import DinoVisionTransformer
from dinov2.models.weights import build_backbone_like, unchunked

from .formats import ExportFormat, Notes
from .preprocessing import TORCH_CAUTION, TORCH_TILE
from .tokens import TokenModel, Tokens

WEIGHTS = "model.safetensors"

_USAGE = """\
import torch
from PIL import Image
from safetensors.torch import load_file
from torchvision import transforms

from dinov2.models.weights import build_backbone_like

{tile}
state = load_file("model.safetensors")
model = build_backbone_like(state, num_heads={notes.num_heads}).eval()
model.load_state_dict(state)
with torch.inference_mode():
    features = model.forward_features(images)
cls, patches = features["x_norm_clstoken"], features["x_norm_patchtokens"]
"""


class SafetensorsFormat(ExportFormat):
    """`model.safetensors` with the names of DINOv2's published files."""

    loaded_by = "safetensors"
    requires = ("safetensors",)
    cautions = f"{TORCH_CAUTION}- An image whose sides are no multiples of {{patch}} pixels is an error.\n"

    def write(self, model: DinoVisionTransformer, folder: Path, notes: Notes) -> None:
        """One file; the notes are in its metadata."""
        from safetensors.torch import save_file

        state = {unchunked(name): tensor.contiguous() for name, tensor in model.state_dict().items()}
        save_file(state, folder / WEIGHTS, metadata={"format": "pt", **notes.metadata})

    def load(self, folder: Path) -> Callable[[Tensor], Tokens]:
        """Read by the library, into a model made from what was read."""
        from safetensors import safe_open
        from safetensors.torch import load_file

        state = load_file(folder / WEIGHTS)
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            num_heads = int(file.metadata()["num_heads"])
        model = build_backbone_like(state, num_heads=num_heads)
        model.load_state_dict(state)
        return TokenModel(model.eval())

    def usage(self, notes: Notes) -> str:
        """With this project's model; DINOv2's loads the file, too."""
        return _USAGE.format(tile=TORCH_TILE.format(notes=notes), notes=notes)

    def other_sizes(self, model: DinoVisionTransformer) -> str:
        """The same model, and so the same rule, which has two settings that weights do not tell."""
        antialias, offset = model.interpolate_antialias, model.interpolate_offset
        return (
            "At other sizes the model resizes positions as its attributes say, which are not in the file: "
            f"`interpolate_antialias = {antialias}`, `interpolate_offset = {offset}`."
        )
