"""What is wrong with labelled data sets is found before an image is read."""

import numpy as np
import pytest
import torch
from eval_making import write_tiles

from dinov2.data.datasets.image_folder import ImageFolderDataset
from dinov2.errors import UserError
from dinov2.eval.labelled import LabelledSet, match_sets, open_labelled


def opened(string: str, name: str = "val", **options: str) -> LabelledSet:
    return open_labelled(name, string, transform=None, max_pixels=1 << 20, **options)


@pytest.fixture
def tiles(tmp_path):
    return write_tiles(tmp_path / "tiles")


def test_labels_classes_and_slides(tiles):
    found = opened(f"ImageFolder:root={tiles}")
    assert found.labels.tolist() == [0] * 12 + [1] * 12
    assert found.classes == ["c0", "c1"]
    assert found.group_numbers().tolist() == [i // 3 for i in range(24)]
    assert found.summary()["samples_of_classes"] == {"c0": 12, "c1": 12}
    assert opened(f"ImageFolder:root={tiles}", group_by="none").groups is None


def test_a_list_without_labels(tiles):
    (tiles / "list.csv").write_text("path,kind\nc0/slide00_0.png,a\nc1/slide10_0.png,b\n")
    with pytest.raises(UserError, match="has no labels: a list needs label=COLUMN"):
        opened(f"CSV:file={tiles / 'list.csv'}")
    with pytest.raises(UserError, match="unknown column"):
        opened(f"CSV:file={tiles / 'list.csv'}:label=class")
    assert opened(f"CSV:file={tiles / 'list.csv'}:label=kind").classes == ["a", "b"]


@pytest.mark.parametrize("wrong", [-1, 2])
def test_class_numbers_out_of_range(tiles, monkeypatch, wrong):
    labels = np.array([0] * 12 + [1] * 11 + [wrong])
    monkeypatch.setattr(ImageFolderDataset, "get_targets", lambda self: labels)
    with pytest.raises(UserError, match=rf"tile 23 .*slide13_2.png.* class number {wrong}, expected 0 .. 1; 1 of 24"):
        opened(f"ImageFolder:root={tiles}")


def test_no_tiles(tiles, monkeypatch):
    monkeypatch.setattr(ImageFolderDataset, "get_targets", lambda self: np.zeros(0, np.int64))
    with pytest.raises(UserError, match="the val set .* has no tiles"):
        opened(f"ImageFolder:root={tiles}")


def test_slides_that_are_not_known(tiles):
    (tiles / "list.csv").write_text("path,kind\nc0/slide00_0.png,a\nc1/slide10_0.png,b\n")
    string = f"CSV:file={tiles / 'list.csv'}:label=kind"
    assert opened(string).groups is None or opened(string).group_numbers().shape == (2,)
    with pytest.raises(UserError, match="cohort"):
        opened(string, group_by="cohort")


def test_one_class_only(tmp_path):
    train = opened(f"ImageFolder:root={write_tiles(tmp_path / 'one', classes=1)}", "train")
    with pytest.raises(UserError, match="all 12 tiles of the train set .* are of the class 'c0'"):
        match_sets(train, [])


def test_classes_are_matched_by_name(tmp_path, tiles):
    three = write_tiles(tmp_path / "three", classes=3)
    (tiles / "c0").rename(tiles / "c2")  # classes c1 and c2
    train, val = opened(f"ImageFolder:root={three}", "train"), opened(f"ImageFolder:root={tiles}")
    (matched,) = match_sets(train, [val])
    assert matched.classes == ["c0", "c1", "c2"]
    assert torch.equal(matched.labels, val.labels + 1)


def test_a_class_that_the_training_set_does_not_have(tmp_path, tiles):
    (tiles / "c1").rename(tiles / "other")
    train = opened(f"ImageFolder:root={write_tiles(tmp_path / 'two')}", "train")
    with pytest.raises(UserError, match="tiles of 1 classes, such as 'other', that the train set"):
        match_sets(train, [opened(f"ImageFolder:root={tiles}")])


def test_a_class_without_tiles_to_learn_from(tmp_path, tiles, caplog, monkeypatch):
    three = opened(f"ImageFolder:root={write_tiles(tmp_path / 'three', classes=3)}")
    labels = three.labels.clone()
    labels[labels == 1] = 0
    train = LabelledSet("train", "x", three.dataset, labels, three.classes, None)
    match_sets(train, [three])
    assert "no tile of the train set is of the class 'c1', so that the 12 of the val set" in caplog.text


def test_slides_on_both_sides(tmp_path, tiles, caplog):
    train = opened(f"ImageFolder:root={tiles}", "train")
    match_sets(train, [opened(f"ImageFolder:root={write_tiles(tmp_path / 'o', prefix='other')}")])
    assert "are in the train set" not in caplog.text
    match_sets(train, [opened(f"ImageFolder:root={tiles}")])
    assert "8 of 8 slides of the val set, such as 'slide00', are in the train set as well" in caplog.text
