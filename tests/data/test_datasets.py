"""Data sets from strings: right samples, right labels, picklable, and errors for people."""

import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from dinov2.data import make_dataset
from dinov2.data.datasets import TileReadError, parse_dataset_string
from dinov2.data.datasets.registry import _parse_settings
from dinov2.data.tar_index import IndexRequest, infer_entries
from dinov2.errors import UserError


@pytest.fixture
def packed(image_folder: Path, tmp_path: Path) -> Path:
    """A folder with pretrain_dataset.tar, downstream_dataset.tar (same images) and their indices."""
    folder = tmp_path / "packed: a=b"
    folder.mkdir()
    for name in ("pretrain", "downstream"):
        with tarfile.open(folder / f"{name}_dataset.tar", "w") as tar:
            tar.add(image_folder, arcname="tiles")
    rows = [
        f"{path.name},{label},{'AB'[label]}"
        for label, part in enumerate("ab")
        for path in sorted((image_folder / part).iterdir())
    ]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label,class", *rows]) + "\n")
    infer_entries(IndexRequest(folder / "pretrain_dataset.tar", folder, "pretrain"))
    for split in ("query", "test"):
        infer_entries(IndexRequest(folder / "downstream_dataset.tar", folder, split, csv=tmp_path / "labels.csv"))
    return folder


def place(folder: Path) -> str:
    return f'root="{folder}":extra="{folder}"'


def test_tar_data_sets_give_the_images_and_labels(packed, image_folder):
    pretrain = make_dataset(dataset_str=f"Pathology:{place(packed)}")
    test = make_dataset(dataset_str=f"KNN:{place(packed)}:split=test")
    with tarfile.open(packed / "downstream_dataset.tar") as tar:
        names = [member.name.split("/")[-1] for member in tar if member.isreg()]
    assert len(pretrain) == len(test) == len(names) == 24
    for index, name in enumerate(names):
        image, label = test[index]
        expected = np.asarray(Image.open(image_folder / name[0] / name))
        assert np.array_equal(np.asarray(image), expected)
        assert np.array_equal(np.asarray(pretrain[index][0]), expected)
        assert label == "ab".index(name[0]) == test.get_target(index)
    assert test.get_targets().tolist() == ["ab".index(name[0]) for name in names]


def test_image_folder(image_folder):
    dataset = make_dataset(dataset_str=f"ImageFolder:root={image_folder}", target_transform=lambda label: label + 10)
    assert (len(dataset), dataset.classes) == (24, ["a", "b"])
    assert [dataset[i][1] for i in (0, 11, 12)] == [10, 10, 11]
    assert "b00.jpg" in dataset.describe(12)


@pytest.mark.parametrize("kind", ["Pathology", "KNN", "ImageFolder"])
def test_conformance(kind, packed, image_folder):
    strings = {
        "Pathology": f"Pathology:{place(packed)}",
        "KNN": f"KNN:{place(packed)}:split=query",
        "ImageFolder": f'ImageFolder:root="{image_folder}"',
    }
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    dataset = make_dataset(dataset_str=strings[kind])
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files  # nothing is opened before the first read
    dumped = pickle.dumps(dataset)
    assert len(dumped) < 20_000
    copy = pickle.loads(dumped)
    assert len(copy) == len(dataset) == len(dataset.get_targets())
    for index in (0, len(dataset) - 1):
        assert np.array_equal(np.asarray(copy[index][0]), np.asarray(dataset[index][0]))
        assert copy.get_image_data(index) == dataset.get_image_data(index)
        assert copy[index][1] == dataset.get_targets()[index]
        assert isinstance(dataset.describe(index), str)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Patholgy:root=a:extra=b", "did you mean Pathology"),
        ("Pathology:root=a:extra=b:subst=c", "did you mean subset"),
        ("Pathology:root=a", "lacks extra=..."),
        ("Pathology:root", "expected key=value"),
        ("KNN:root=a:extra=b:split=val", "split"),
        ("Pathology:root=/nowhere:extra=/nowhere", "pretrain_dataset.tar does not exist"),
        ("ImageFolder:root=/nowhere", "does not exist"),
    ],
)
def test_wrong_strings(text, message):
    with pytest.raises(UserError, match=message):
        make_dataset(dataset_str=text)


def test_values_with_separators():
    spec, settings = parse_dataset_string("""Pathology:root="/a:b/c=d":extra='/e f':subset=x=y""")
    assert settings == {"root": "/a:b/c=d", "extra": "/e f", "subset": "x=y"}
    assert spec.required == ("root", "extra")
    assert _parse_settings("", "X") == {}


def test_missing_index_and_labels(packed):
    (packed / "class-ids.npy").rename(packed / "gone.npy")
    with pytest.raises(UserError, match=r"class-ids\.npy"):
        make_dataset(dataset_str=f"KNN:{place(packed)}:split=test")
    with pytest.raises(UserError, match=r"infer_entries\.py .*--suffix small"):
        make_dataset(dataset_str=f"Pathology:{place(packed)}:subset=small")


def test_index_of_another_tar(packed):
    with (packed / "pretrain_dataset.tar").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(UserError, match="pretrain_entries"):
        make_dataset(dataset_str=f"Pathology:{place(packed)}")


def test_index_past_the_end_of_the_tar(packed):
    entries = np.array([[0, 0, 512, 1 << 40]], dtype=np.uint64)
    np.save(packed / "pretrain_entries_far.npy", entries)
    with pytest.raises(UserError, match="inside the archive"):
        make_dataset(dataset_str=f"Pathology:{place(packed)}:subset=far")


def test_empty_index_and_folder(packed, tmp_path):
    np.save(packed / "pretrain_entries_none.npy", np.zeros((0, 4), dtype=np.uint64))
    with pytest.raises(UserError, match="empty"):
        make_dataset(dataset_str=f"Pathology:{place(packed)}:subset=none")
    (tmp_path / "bare").mkdir()
    with pytest.raises(UserError, match="no images"):
        make_dataset(dataset_str=f"ImageFolder:root={tmp_path / 'bare'}")


def test_tile_that_is_no_image(image_folder):
    (image_folder / "a" / "a00.jpg").write_bytes(b"<html>")
    dataset = make_dataset(dataset_str=f"ImageFolder:root={image_folder}")
    with pytest.raises(TileReadError, match=r"a00\.jpg is not a readable image: .* 6 bytes starting with 3c 68 74 6d"):
        dataset[0]


def test_tar_that_shrinks_while_it_is_read(packed):
    dataset = make_dataset(dataset_str=f"Pathology:{place(packed)}")
    assert dataset[23][0].size == (64, 64)
    with (packed / "pretrain_dataset.tar").open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(TileReadError, match="cut off"):
        dataset[23]
