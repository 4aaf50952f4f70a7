"""Data set strings: `Name:key=value:key="a value with : or ="`."""

import re
from collections.abc import Callable
from dataclasses import dataclass

from dinov2.errors import UserError, unknown_name

from .base import TileDataset
from .image_folder import ImageFolderDataset
from .knn import KNNDataset
from .pathology import PathologyDataset


@dataclass(frozen=True)
class DatasetSpec:
    """A data set class and the keys that its string must and may have."""

    factory: Callable[..., TileDataset]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()


DATASETS: dict[str, DatasetSpec] = {
    "Pathology": DatasetSpec(PathologyDataset, ("root", "extra"), ("subset",)),
    "KNN": DatasetSpec(KNNDataset, ("root", "extra", "split"), ("subset",)),
    "ImageFolder": DatasetSpec(ImageFolderDataset, ("root",)),
}

_PART = re.compile(r"""([A-Za-z_]\w*)=("[^"]*"|'[^']*'|[^:]*)(?::|$)""")


def parse_dataset_string(text: str) -> tuple[DatasetSpec, dict[str, str]]:
    """Look up the class that a data set string names, and read its settings.

    Raises:
        UserError: for an unknown name or key, a missing key, or a part that is not key=value.
    """
    name, _, rest = text.partition(":")
    if name.startswith("ImageNet"):
        raise UserError(
            f"data set {name}, which is DINOv2's default, is not part of this version: name your own tiles with "
            "train.dataset_path=Pathology:root=...:extra=... or with --input-dir"
        )
    if name not in DATASETS:
        raise unknown_name("data set", name, DATASETS)
    spec = DATASETS[name]
    settings = _parse_settings(rest, text)
    for key in settings:
        if key not in spec.required + spec.optional:
            raise unknown_name(f"key of data set {name}", key, spec.required + spec.optional)
    missing = [key for key in spec.required if key not in settings]
    if missing:
        raise UserError(f"data set string {text!r} lacks {' and '.join(f'{key}=...' for key in missing)}")
    return spec, settings


def _parse_settings(rest: str, text: str) -> dict[str, str]:
    settings: dict[str, str] = {}
    position = 0
    while position < len(rest):
        match = _PART.match(rest, position)
        if match is None:
            raise UserError(
                f"data set string {text!r} is not understood from {rest[position:]!r} on: expected key=value, "
                'parts separated by ":"; a value that contains ":" goes into quotes'
            )
        key, value = match.groups()
        settings[key] = value[1:-1] if value[:1] in ("'", '"') and len(value) > 1 else value
        position = match.end()
    return settings
