"""TorchScript, for programs in C++ and those without this project's code."""

import io
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from dinov2.models.vision_transformer import DinoVisionTransformer

from .formats import ExportFormat, Notes, json_text, one_size_note
from .preprocessing import TORCH_CAUTION, TORCH_TILE
from .tokens import TokenModel, Tokens

PROGRAM = "model.ts.pt"
NOTES = "notes.json"

_USAGE = """\
import torch
from PIL import Image
from torchvision import transforms

{tile}
model = torch.jit.load("model.ts.pt", map_location="cpu")
with torch.inference_mode():
    cls, patches = model(images)
"""


class _OneSize(nn.Module):
    """Calls a traced model for images of the size it was traced with, and refuses others.

    Positions are constants of the trace: an image of as many patches in another arrangement would get wrong ones.
    """

    def __init__(self, traced: nn.Module, image_size: int) -> None:
        super().__init__()
        self.traced = traced
        self.image_size = image_size

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, S, S) -> class tokens (B, D), patch tokens (B, N, D)."""
        if images.shape[-2] != self.image_size or images.shape[-1] != self.image_size:
            raise ValueError(f"images of {images.shape}: expected {self.image_size} x {self.image_size} pixels")
        cls, patches = self.traced(images)
        return cls, patches


class TorchScriptFormat(ExportFormat):
    """`model.ts.pt`: images (B, 3, S, S) of any number and one size -> (class tokens, patch tokens)."""

    loaded_by = "torch.jit"
    cautions = TORCH_CAUTION + "- torch calls TorchScript deprecated, and supports it up to Python 3.13 only.\n"

    def write(self, model: DinoVisionTransformer, folder: Path, notes: Notes) -> None:
        """A trace; the notes are in the file as notes.json."""
        example = torch.zeros(2, 3, notes.image_size, notes.image_size)
        with torch.no_grad(), _unwarned():
            traced = torch.jit.trace(TokenModel(model).eval(), example, check_trace=False)
            program = torch.jit.script(_OneSize(traced, notes.image_size).eval())
            content = io.BytesIO()  # given a path, torch ends the process where the disk is full
            torch.jit.save(program, content, _extra_files={NOTES: json_text(notes.metadata)})
        (folder / PROGRAM).write_bytes(content.getbuffer())

    def load(self, folder: Path) -> Callable[[Tensor], Tokens]:
        """By torch alone."""
        with _unwarned():
            model = torch.jit.load(folder / PROGRAM, map_location="cpu")
        return lambda images: Tokens(*model(images))

    def usage(self, notes: Notes) -> str:
        """Without this project's code."""
        return _USAGE.format(tile=TORCH_TILE.format(notes=notes))

    def other_sizes(self, model: DinoVisionTransformer) -> str:
        """None: positions are constants of the trace."""
        return one_size_note("program")


@contextmanager
def _unwarned() -> Iterator[None]:
    """Without what torch says of sizes, which are meant to become constants, and of the age of TorchScript."""
    with warnings.catch_warnings():
        for kind in (torch.jit.TracerWarning, DeprecationWarning, FutureWarning):
            warnings.simplefilter("ignore", kind)
        yield
