"""What is asked for, and what somebody states who asks."""

from dataclasses import dataclass
from pathlib import Path

KINDS = ("safetensors", "timm", "huggingface", "onnx", "torchscript")
NETWORKS = ("teacher", "student")
RGB = tuple[float, float, float]


@dataclass(frozen=True)
class Stated:
    """What the model card is told; empty or None where nothing is said, and files may know it.

    Attributes:
        name: of the model.
        licence: of the weights.
        mpp: micrometres per pixel of the training tiles.
        data: what the model was trained on.
        mean, std: of the colour channels, as images have to be normalised.
    """

    name: str = ""
    licence: str = ""
    mpp: str = ""
    data: str = ""
    mean: RGB | None = None
    std: RGB | None = None


@dataclass(frozen=True)
class Request:
    """An export.

    Attributes:
        weights: what `resolve_weights` understands, or the output folder of a run.
        kind: one of `KINDS`.
        output: the folder to make.
        network: one of `NETWORKS`, where a file has both.
        run: output folder of the training; None: the one that the weights lie in, if any.
        results: files evaluation_*.json of these weights.
        image_size: pixels; None: that of the stored positions.
        num_heads: of an architecture that is none of DINOv2's.
        offline: download nothing.
    """

    weights: str
    kind: str
    output: Path
    network: str = "teacher"
    run: Path | None = None
    results: tuple[Path, ...] = ()
    image_size: int | None = None
    num_heads: int | None = None
    offline: bool = False
    stated: Stated = Stated()
