"""Several data sets as one."""

import numpy as np
import pytest
from dataset_making import MAKERS, picture

from dinov2.data import make_dataset
from dinov2.data.datasets import ConcatTileDataset, TileReadError
from dinov2.errors import UserError


def test_parts_follow_each_other(tmp_path):
    made = []
    for name in ("CSV", "HDF5", "Pathology"):
        (tmp_path / name).mkdir()
        made.append(MAKERS[name](tmp_path / name))
    dataset = make_dataset(
        dataset_str=[part.string for part in made], transform=np.array, target_transform=lambda label: label + 10
    )
    assert isinstance(dataset, ConcatTileDataset)
    assert [len(part) for part in dataset.parts] == [6, 6, 6]
    assert len(dataset) == 18
    assert dataset.get_targets().tolist() == [target for part in made for target in part.targets]
    tiles = [tile for part in made for tile in part.tiles]
    for index, number in enumerate(tiles):
        assert np.array_equal(dataset[index][0], picture(number))
        assert dataset[index][1] == dataset.get_target(index) + 10 == dataset.get_targets()[index] + 10
        assert dataset.locate(index) == dataset.parts[index // 6].locate(index % 6)
        assert dataset.get_image_data(index) == dataset.parts[index // 6].get_image_data(index % 6)
    for index in (-1, 18):
        with pytest.raises(IndexError):
            dataset[index]
    made[0].damage()
    with pytest.raises(TileReadError) as caught:
        dataset[0]
    assert caught.value.place == dataset.locate(0)


def test_an_empty_list_is_refused():
    with pytest.raises(UserError, match="name at least one"):
        make_dataset(dataset_str=[])


def test_a_wrong_part_is_named(tmp_path):
    (tmp_path / "CSV").mkdir()
    with pytest.raises(UserError, match="ImageFoldr"):
        make_dataset(dataset_str=[MAKERS["CSV"](tmp_path / "CSV").string, "ImageFoldr:root=a"])
