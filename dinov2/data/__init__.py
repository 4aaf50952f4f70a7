"""From a data set string to batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .augmentations import DataAugmentationDINO
    from .collate import Batch, collate_data_and_cast
    from .loaders import SamplerType, make_data_loader, make_dataset
    from .masking import MaskingGenerator

_HOMES = {
    "Batch": "collate",
    "DataAugmentationDINO": "augmentations",
    "MaskingGenerator": "masking",
    "SamplerType": "loaders",
    "collate_data_and_cast": "collate",
    "make_data_loader": "loaders",
    "make_dataset": "loaders",
}

__all__ = [
    "Batch",
    "DataAugmentationDINO",
    "MaskingGenerator",
    "SamplerType",
    "collate_data_and_cast",
    "make_data_loader",
    "make_dataset",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is asked for: indexing a tar needs neither torch nor torchvision."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
