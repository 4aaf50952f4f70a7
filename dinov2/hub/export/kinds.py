"""The kinds of exports by name."""

from .formats import ExportFormat
from .huggingface_format import HuggingFaceFormat
from .onnx_format import OnnxFormat
from .safetensors_format import SafetensorsFormat
from .timm_format import TimmFormat
from .torchscript_format import TorchScriptFormat

FORMATS: dict[str, ExportFormat] = {
    "safetensors": SafetensorsFormat(),
    "timm": TimmFormat(),
    "huggingface": HuggingFaceFormat(),
    "onnx": OnnxFormat(),
    "torchscript": TorchScriptFormat(),
}
