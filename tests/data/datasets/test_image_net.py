"""ImageNet in its folders, and the `.npy` files about it."""

import logging
from pathlib import Path

import numpy as np
import pytest
from dataset_making import image_net, picture, write_pictures

from dinov2.data import make_dataset
from dinov2.data.datasets import ImageNet
from dinov2.data.datasets.image_net_extra import ENTRY_FIELDS
from dinov2.errors import UserError

LABELS = 'n01,"tench, Tinca tinca"\nn02,goldfish\n'


def dumped(root: Path, split: str) -> ImageNet:
    dataset = ImageNet(split=split, root=str(root), extra=str(root / "extra"))
    dataset.dump_extra()
    return dataset


def test_files_have_the_form_of_dinov2(tmp_path):
    image_net(tmp_path)
    entries = np.load(tmp_path / "extra" / "entries-TRAIN.npy")  # without pickle
    assert entries.dtype.names == ("actual_index", "class_index", "class_id", "class_name")
    assert [entries.dtype[name].str[:2] for name in entries.dtype.names] == ["<u", "<u", "<U", "<U"]
    assert entries[4].tolist() == (4, 1, "n02", "goldfish")
    assert np.load(tmp_path / "extra" / "class-ids-TRAIN.npy").tolist() == ["n01", "n02"]
    assert np.load(tmp_path / "extra" / "class-names-TRAIN.npy").tolist() == ["tench, Tinca tinca", "goldfish"]


def test_entries_that_dinov2_has_written(tmp_path):
    write_pictures(tmp_path / "val", "{label}/ILSVRC2012_val_0000001{number}.JPEG")
    dtype = [("actual_index", "<u4"), ("class_index", "<u4"), ("class_id", "U9"), ("class_name", "U121")]
    rows = [(15, 386, "n02", "goldfish"), (10, 101, "n01", "tench")]
    np.save(tmp_path / "entries-VAL.npy", np.array(rows, dtype=dtype))
    dataset = make_dataset(dataset_str=f"ImageNet:split=VAL:root={tmp_path}:extra={tmp_path}")
    assert [np.array_equal(np.asarray(dataset[i][0]), picture(n)) for i, n in ((0, 5), (1, 0))] == [True, True]
    assert [dataset[i][1] for i in range(2)] == [386, 101]
    assert (dataset.get_class_id(0), dataset.get_class_name(1)) == ("n02", "tench")


def test_validation_images(tmp_path):
    write_pictures(tmp_path / "val", "{label}/ILSVRC2012_val_0000001{number}.JPEG")
    (tmp_path / "labels.txt").write_text(LABELS)
    dataset = dumped(tmp_path, "VAL")
    assert [np.array_equal(np.asarray(dataset[i][0]), picture(i)) for i in range(6)] == [True] * 6
    assert dataset.get_targets().tolist() == [0, 0, 0, 1, 1, 1]
    assert (dataset.find_class_id(1), dataset.find_class_name(0)) == ("n02", "tench, Tinca tinca")
    assert (dataset.get_class_id(0), dataset.get_class_name(5)) == ("n01", "goldfish")


def test_test_images_have_no_class(tmp_path):
    write_pictures(tmp_path / "test", "ILSVRC2012_test_0000001{number}.JPEG")
    dataset = dumped(tmp_path, "TEST")
    assert not (tmp_path / "extra" / "class-ids-TEST.npy").exists()
    assert [np.array_equal(np.asarray(dataset[i][0]), picture(i)) for i in range(6)] == [True] * 6
    assert dataset.get_targets().tolist() == [-1] * 6
    assert {dataset[i][1] for i in range(6)} == {-1}
    assert (dataset.get_class_id(0), dataset.get_class_name(0)) == (None, None)
    with pytest.raises(UserError, match="never published"):
        dataset.find_class_name(0)


def test_length_is_checked_on_request(tmp_path, caplog):
    string = image_net(tmp_path).string
    with caplog.at_level(logging.WARNING, logger="dinov2"):
        assert len(make_dataset(dataset_str=string)) == 6
    assert "ImageNet TRAIN has 1,281,167 images" in caplog.text
    with pytest.raises(UserError, match=r"has 1,281,167 images, .* names 6"):
        make_dataset(dataset_str=f"{string}:check_length=true")


@pytest.mark.parametrize("content", [b"", b"no array", b"PK\x03\x04zip"])
def test_damaged_entries(tmp_path, content):
    string = image_net(tmp_path).string
    entries = tmp_path / "extra" / "entries-TRAIN.npy"
    entries.write_bytes(content)
    with pytest.raises(UserError, match=r"entries-TRAIN\.npy cannot be used: .*dump_extra\(\)"):
        make_dataset(dataset_str=string)


@pytest.mark.parametrize(
    "array",
    [
        np.array([{"a": 1}], dtype=object),
        np.zeros((3, 4), np.uint64),
        np.zeros((2, 2), dtype=list(zip(ENTRY_FIELDS, ("<u4", "<u4", "U4", "U4"), strict=True))),
        np.zeros(3, dtype=list(zip(ENTRY_FIELDS, ("<f4", "<u4", "U4", "U4"), strict=True))),
    ],
)
def test_entries_of_another_kind(tmp_path, array):
    string = image_net(tmp_path).string
    np.save(tmp_path / "extra" / "entries-TRAIN.npy", array)
    with pytest.raises(UserError, match=r"entries-TRAIN\.npy (cannot be used|is no table)"):
        make_dataset(dataset_str=string)


def test_entries_that_claim_more_than_there_is(tmp_path):
    string = image_net(tmp_path).string
    entries = tmp_path / "extra" / "entries-TRAIN.npy"
    content = entries.read_bytes()
    entries.write_bytes(content[:-1])
    with pytest.raises(UserError, match="cannot be used"):
        make_dataset(dataset_str=string)
    entries.write_bytes(content.replace(b"(6,), ", b"(9999999999999999,), ".ljust(6))[: len(content)])
    with pytest.raises(UserError, match="cannot be used"):
        make_dataset(dataset_str=string)


@pytest.mark.parametrize(
    ("split", "name", "labels", "message"),
    [
        ("TRAIN", "{label}/{label}_{number}.JPEG", "n01,tench\n", r"no name for 1 of 2 classes, such as n02"),
        ("TRAIN", "{label}/{label}_{number}.JPEG", "n01\nn02,b\n", r"row 1: expected an id and a name, got 1 cells"),
        ("TRAIN", "{label}/{label}_{number}.JPEG", None, r"labels\.txt, a table .* cannot be read"),
        ("TRAIN", "{label}/{number}.JPEG", LABELS, r"n01/0\.JPEG is no image of TRAIN, such as n01440764/n01440764_18"),
        ("TRAIN", "{label}/{label}_{number}.png", LABELS, "is not laid out like ImageNet's"),
        ("TRAIN", "{label}/{label}_0{number}.JPEG", LABELS, "is not laid out like ImageNet's"),
        ("VAL", "ILSVRC2012_val_0000001{number}.JPEG", LABELS, "such as n01440764/ILSVRC2012_val_00000018.JPEG"),
        ("TEST", "x/{number}.txt", LABELS, "holds no images, such as ILSVRC2012_test_00000018.JPEG"),
    ],
)
def test_folders_of_another_layout(tmp_path, split, name, labels, message):
    write_pictures(tmp_path / split.lower(), name)
    if labels is not None:
        (tmp_path / "labels.txt").write_text(labels)
    with pytest.raises(UserError, match=message):
        dumped(tmp_path, split)
    assert not (tmp_path / "extra").exists()


def test_missing_folders_and_splits(tmp_path):
    string = image_net(tmp_path).string
    with pytest.raises(UserError, match="unknown split"):
        ImageNet(split="VALID", root="", extra="")
    with pytest.raises(UserError, match=r"folder .*/val of ImageNet's images does not exist"):
        make_dataset(dataset_str=string.replace("TRAIN", "VAL"))
    with pytest.raises(UserError, match=r"folder .*/val of ImageNet's images does not exist"):
        dumped(tmp_path, "VAL")
    assert {split.name for split in ImageNet.Split} == {"TRAIN", "VAL", "TEST"}
    assert sum(split.length for split in ImageNet.Split) == 1_431_167
