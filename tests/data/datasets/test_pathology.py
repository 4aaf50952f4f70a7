"""Pathology: what is refused at once, and a tar that changes while it is read."""

from pathlib import Path

import numpy as np
import pytest
from dataset_making import pathology

from dinov2.data import make_dataset
from dinov2.data.file_reader import FileChangedError
from dinov2.errors import UserError


@pytest.fixture
def string(tmp_path: Path) -> str:
    return pathology(tmp_path).string


def test_missing_index(string):
    with pytest.raises(UserError, match=r"infer_entries\.py .*--suffix small"):
        make_dataset(dataset_str=f"{string}:subset=small")


def test_index_of_another_tar(string, tmp_path):
    with (tmp_path / "pretrain_dataset.tar").open("r+b") as file:
        file.truncate(2_000)
    with pytest.raises(UserError, match="pretrain_entries"):
        make_dataset(dataset_str=string)


def test_index_past_the_end_of_the_tar(string, tmp_path):
    entries = np.array([[0, 0, 512, 1 << 40]], dtype=np.uint64)
    np.save(tmp_path / "index" / "pretrain_entries_far.npy", entries)
    with pytest.raises(UserError, match="inside the archive"):
        make_dataset(dataset_str=f"{string}:subset=far")


def test_empty_index(string, tmp_path):
    np.save(tmp_path / "index" / "pretrain_entries_none.npy", np.zeros((0, 4), dtype=np.uint64))
    with pytest.raises(UserError, match="empty"):
        make_dataset(dataset_str=f"{string}:subset=none")


def test_tar_that_shrinks_while_it_is_read(string, tmp_path):
    dataset = make_dataset(dataset_str=string)
    assert dataset[5][0].size == (16, 16)
    with (tmp_path / "pretrain_dataset.tar").open("r+b") as file:
        file.truncate(2_000)
    with pytest.raises(FileChangedError, match="cut off"):
        dataset[5]
