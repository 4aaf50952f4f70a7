"""The kinds of exports by name."""

from .formats import ExportFormat
from .huggingface_format import HuggingFaceFormat
from .onnx_format import OnnxFormat
from .request import KINDS
from .safetensors_format import SafetensorsFormat
from .timm_format import TimmFormat
from .torchscript_format import TorchScriptFormat

_MADE = (SafetensorsFormat(), TimmFormat(), HuggingFaceFormat(), OnnxFormat(), TorchScriptFormat())
FORMATS: dict[str, ExportFormat] = dict(zip(KINDS, _MADE, strict=True))
