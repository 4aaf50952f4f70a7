"""Data sets of tiles, and the registry that a data set string chooses from."""

from .base import TileDataset, TileReadError
from .image_folder import ImageFolderDataset
from .knn import KNNDataset
from .pathology import PathologyDataset
from .registry import DATASETS, DatasetSpec, parse_dataset_string

__all__ = [
    "DATASETS",
    "DatasetSpec",
    "ImageFolderDataset",
    "KNNDataset",
    "PathologyDataset",
    "TileDataset",
    "TileReadError",
    "parse_dataset_string",
]
