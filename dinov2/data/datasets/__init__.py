"""Data sets of tiles, and the registry that a data set string chooses from."""

from .base import TileDataset, TilePlace, TileReadError, UnknownGroupsError
from .concat import ConcatTileDataset
from .csv_list import CSVListDataset
from .hdf5 import HDF5Dataset
from .image_folder import ImageFolderDataset
from .image_net import ImageNet
from .image_net_22k import ImageNet22k
from .knn import KNNDataset
from .pathology import PathologyDataset, PathologyFoundationDataset
from .registry import DATASETS, DatasetSpec, check_dataset_strings, parse_dataset_string

__all__ = [
    "DATASETS",
    "CSVListDataset",
    "ConcatTileDataset",
    "DatasetSpec",
    "HDF5Dataset",
    "ImageFolderDataset",
    "ImageNet",
    "ImageNet22k",
    "KNNDataset",
    "PathologyDataset",
    "PathologyFoundationDataset",
    "TileDataset",
    "TilePlace",
    "TileReadError",
    "UnknownGroupsError",
    "check_dataset_strings",
    "parse_dataset_string",
]
