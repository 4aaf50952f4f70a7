"""KNN: labels have to be there, and the split has a name."""

import pytest
from dataset_making import knn

from dinov2.data import make_dataset
from dinov2.data.datasets import KNNDataset
from dinov2.errors import UserError


def test_without_class_names_there_are_no_labels(tmp_path):
    string = knn(tmp_path).string
    (tmp_path / "class-ids.npy").unlink()
    (tmp_path / "query_index.json").unlink()  # as in an index of the fork, which records nothing
    with pytest.raises(UserError, match=r"class-ids\.npy .* no labels"):
        make_dataset(dataset_str=string)


def test_unknown_split(tmp_path):
    with pytest.raises(UserError, match="unknown split 'val'"):
        KNNDataset(root=str(tmp_path), extra=str(tmp_path), split="val")
