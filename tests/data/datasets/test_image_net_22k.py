"""ImageNet-22k: tars of classes, their entries, and what is wrong with some of them."""

import gzip
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from dataset_making import image_net_22k, overwrite, picture

from dinov2.data import make_dataset
from dinov2.data.datasets import ImageNet22k, TileReadError
from dinov2.data.file_reader import FileChangedError
from dinov2.errors import UserError

DTYPE = [
    ("class_index", "<u4"),
    ("class_id", "U9"),
    ("start_offset", "<u4"),
    ("end_offset", "<u4"),
    ("filename", "U30"),
]


def string(folder: Path) -> str:
    return f"ImageNet22k:root={folder / 'tars'}:extra={folder / 'extra'}"


def test_entries_go_from_the_header_to_the_end(tmp_path):
    image_net_22k(tmp_path)
    entries = np.load(tmp_path / "extra" / "entries.npy")
    assert entries.dtype.names == tuple(name for name, _ in DTYPE)
    assert np.load(tmp_path / "extra" / "class-ids.npy").tolist() == ["n01", "n02"]
    found = []
    for number, class_id in enumerate(("n01", "n02")):
        with tarfile.open(tmp_path / "tars" / f"{class_id}.tar") as tar:
            found += [(number, class_id, info.offset, info.offset_data + info.size, info.name) for info in tar]
    assert entries.tolist() == found
    dataset = make_dataset(dataset_str=string(tmp_path))
    assert (dataset.get_class_id(3), dataset.find_class_id(0)) == ("n02", "n01")
    place = dataset.locate(1)
    assert (Path(place.archive).name, place.member, place.start) == ("n01.tar", "n01_1.png", found[1][2] + 512)


def test_nothing_hidden_is_an_image_or_a_class(tmp_path):
    image_net_22k(tmp_path)
    (tmp_path / "tars" / "._n01.tar").write_bytes(b"AppleDouble")
    images = np.load(tmp_path / "extra" / "entries.npy")["filename"].tolist()
    with tarfile.open(tmp_path / "tars" / "n01.tar", "a") as tar:
        for name in ("._n01_0.png", "__MACOSX/n01_0.png"):
            info = tarfile.TarInfo(name)
            info.size = 4
            tar.addfile(info, io.BytesIO(b"fork"))
    ImageNet22k(root=str(tmp_path / "tars"), extra=str(tmp_path / "extra")).dump_extra()
    assert np.load(tmp_path / "extra" / "entries.npy")["filename"].tolist() == images
    assert np.load(tmp_path / "extra" / "class-ids.npy").tolist() == ["n01", "n02"]


def test_entries_that_dinov2_has_written(tmp_path):
    """Whole blocks, from header to header, in 32-bit numbers."""
    image_net_22k(tmp_path)
    entries = np.load(tmp_path / "extra" / "entries.npy").astype(DTYPE)
    entries["end_offset"] += -entries["end_offset"] % 512
    np.save(tmp_path / "extra" / "entries.npy", entries[[4, 0]])
    dataset = make_dataset(dataset_str=string(tmp_path))
    assert [np.array_equal(np.asarray(dataset[i][0]), picture(n)) for i, n in ((0, 4), (1, 0))] == [True, True]
    assert dataset.get_targets().tolist() == [1, 0]


def repacked(folder: Path, content: bytes) -> ImageNet22k:
    """Two files of this content in the only tar, and a folder, a link and an empty file."""
    (folder / "tile").write_bytes(content)
    (folder / "tars").mkdir()
    with tarfile.open(folder / "tars" / "n01.tar", "w") as tar:
        for name in ("a/" + "long" * 40 + ".JPEG", "b.JPEG"):
            tar.add(folder / "tile", arcname=name)
        tar.add(folder / "tars", arcname="folder", recursive=False)
        link = tarfile.TarInfo("link.JPEG")
        link.type, link.linkname = tarfile.LNKTYPE, "b.JPEG"
        tar.addfile(link)
        tar.addfile(tarfile.TarInfo("empty.JPEG"))
    dataset = ImageNet22k(root=str(folder / "tars"), extra=str(folder / "extra"))
    dataset.dump_extra()
    return dataset


def test_gzipped_images_and_long_names(tmp_path):
    image_net_22k(tmp_path / "plain")
    content = make_dataset(dataset_str=string(tmp_path / "plain")).get_image_data(2)
    dataset = repacked(tmp_path, gzip.compress(content))
    assert len(dataset) == 2
    assert dataset.get_image_data(0) == dataset.get_image_data(1) == content
    assert np.array_equal(np.asarray(dataset[1][0]), picture(2))
    assert dataset.locate(0).member.startswith("a/long")


def test_gzip_streams_that_cannot_be_trusted(tmp_path):
    for name, content, message in (
        ("bomb", gzip.compress(bytes(1 << 21)), "decompresses to more than 1,050,576 bytes"),
        ("cut", gzip.compress(np.random.default_rng(0).bytes(2000))[:-9], "is cut off"),
        ("damaged", b"\x1f\x8b" + b"\xff" * 300, "does not decompress"),
    ):
        (tmp_path / name).mkdir()
        dataset = repacked(tmp_path / name, content)
        dataset.max_pixels = 250
        with pytest.raises(TileReadError, match=message):
            dataset[0]


def test_entries_that_cannot_be_right(tmp_path):
    image_net_22k(tmp_path)
    path = tmp_path / "extra" / "entries.npy"
    entries = np.load(path)
    entries["end_offset"][0] = entries["start_offset"][0] + 512
    entries["end_offset"][1] = 1 << 40
    entries["end_offset"][2] = 1 << 24
    np.save(path, entries)
    dataset = make_dataset(dataset_str=string(tmp_path))
    for index, error, message in (
        (0, TileReadError, "its entry says 0 bytes"),
        (1, TileReadError, "its entry says 1,099,511,625,728 bytes"),
        (2, FileChangedError, "ends before byte 16,777,216"),
    ):
        with pytest.raises(error, match=message):
            dataset[index]


def test_tars_and_files_that_are_missing_or_damaged(tmp_path):
    image_net_22k(tmp_path)
    (tmp_path / "tars" / "n02.tar").rename(tmp_path / "n02.tar")
    with pytest.raises(UserError, match=r"lacks the tars of 1 classes, such as n02\.tar"):
        make_dataset(dataset_str=string(tmp_path))
    (tmp_path / "n02.tar").rename(tmp_path / "tars" / "n02.tar")
    np.save(tmp_path / "extra" / "class-ids.npy", np.arange(2))
    with pytest.raises(UserError, match=r"class-ids\.npy is no list of texts"):
        make_dataset(dataset_str=string(tmp_path))
    overwrite(tmp_path / "tars" / "n01.tar", b"\xff" * 512, at=1536)
    with pytest.raises(UserError, match=r"n01\.tar"):
        ImageNet22k(root=str(tmp_path / "tars"), extra=str(tmp_path / "new")).dump_extra()
    assert not (tmp_path / "new" / "entries.npy").exists()
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no tars"):
        ImageNet22k(root=str(tmp_path / "empty"), extra=str(tmp_path)).dump_extra()
    with pytest.raises(UserError, match="does not exist"):
        make_dataset(dataset_str=f"ImageNet22k:root={tmp_path}/none:extra={tmp_path}/extra")
