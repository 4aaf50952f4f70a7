"""ONNX, for onnxruntime and what else reads it."""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dinov2.models.vision_transformer import DinoVisionTransformer

from .formats import ExportFormat, Notes, one_size_note
from .preprocessing import NUMPY_CAUTION, NUMPY_TILE
from .tokens import TokenModel, Tokens

GRAPH = "model.onnx"
OUTPUTS = ("cls_token", "patch_tokens")
# Protocol buffers end at 2 GiB: weights of larger models are in a file beside the graph, `model.onnx.data`.
_LARGEST_GRAPH = 1_900_000_000  # bytes

_USAGE = """\
import numpy as np
import onnxruntime
from PIL import Image, ImageOps

{tile}
session = onnxruntime.InferenceSession("model.onnx")
cls, patches = session.run(["cls_token", "patch_tokens"], {{"images": images}})
"""


class OnnxFormat(ExportFormat):
    """`model.onnx`: images (B, 3, S, S) of any number and one size -> cls_token (B, D), patch_tokens (B, N, D)."""

    loaded_by = "onnxruntime"
    requires = ("onnx", "onnxscript", "onnxruntime")
    card_library = "onnx"
    cautions = NUMPY_CAUTION

    def write(self, model: DinoVisionTransformer, folder: Path, notes: Notes) -> None:
        """By torch's exporter; the notes are in the graph's metadata."""
        program = _exported(model, notes.image_size)
        program.model.metadata_props.update(notes.metadata)
        size = sum(tensor.nbytes for tensor in model.state_dict().values())
        program.save(folder / GRAPH, external_data=size > _LARGEST_GRAPH)

    def load(self, folder: Path) -> Callable[[Tensor], Tokens]:
        """By onnxruntime, on the CPU."""
        import onnxruntime

        session = onnxruntime.InferenceSession(folder / GRAPH, providers=["CPUExecutionProvider"])

        def compute(images: Tensor) -> Tokens:
            found = session.run(list(OUTPUTS), {"images": images.numpy()})
            return Tokens(*map(torch.from_numpy, found))

        return compute

    def usage(self, notes: Notes) -> str:
        """Without torch."""
        return _USAGE.format(tile=NUMPY_TILE.format(notes=notes))

    def other_sizes(self, model: DinoVisionTransformer) -> str:
        """None: positions are constants of the graph."""
        return one_size_note("graph")


def _exported(model: DinoVisionTransformer, image_size: int) -> torch.onnx.ONNXProgram:
    """The graph, for any number of images."""
    example = torch.zeros(2, 3, image_size, image_size)  # one image would be taken for a constant
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # about torch's own code
        program = torch.onnx.export(
            TokenModel(model).eval(),
            (example,),
            input_names=["images"],
            output_names=OUTPUTS,
            dynamic_shapes={"images": {0: torch.export.Dim("batch")}},
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # of the exporter that goes by torch.export
    return program
