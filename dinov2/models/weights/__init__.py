"""Weights of a vision transformer, whoever wrote them: recognised by keys and shapes, matched by name.

`load_pretrained_backbone` is the door for training and evaluation; `docs/weights.md` lists what is understood.
"""

from .architecture import Architecture, architecture_of, build_backbone_like
from .huggingface_names import from_huggingface, to_huggingface
from .loading import LoadOptions, LoadReport, load_pretrained_backbone
from .names import unchunked
from .networks import SavedNetwork, WeightsFile, read_networks
from .reading import read_content
from .timm_names import from_timm, to_timm

__all__ = [
    "Architecture",
    "LoadOptions",
    "LoadReport",
    "SavedNetwork",
    "WeightsFile",
    "architecture_of",
    "build_backbone_like",
    "from_huggingface",
    "from_timm",
    "load_pretrained_backbone",
    "read_content",
    "read_networks",
    "to_huggingface",
    "to_timm",
    "unchunked",
]
