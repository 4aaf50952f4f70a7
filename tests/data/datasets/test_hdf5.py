"""Tiles in HDF5 files: what is read for one, and files that cannot be used."""

import fcntl
import logging
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_making import overwrite, picture
from numpy.typing import ArrayLike

from dinov2.data import make_dataset
from dinov2.data.datasets import TileReadError
from dinov2.errors import UserError

TILES = np.stack([picture(number) for number in range(6)])  # (6, 16, 16, 3)


def store(path: Path, array: ArrayLike = TILES, key: str = "tile", **options: object) -> str:
    """A data set string for a new file."""
    with h5py.File(path, "a") as file:
        file.create_dataset(key, data=array, **options)
    return f"HDF5:file={path}"


def test_a_tile_of_its_own_chunk_needs_no_other(tmp_path):
    string = store(tmp_path / "a.h5", chunks=(1, 16, 16, 3), compression="gzip", fletcher32=True)
    with h5py.File(tmp_path / "a.h5") as file:
        chunks = [file["tile"].id.get_chunk_info(number) for number in range(6)]
    for number in (0, 1, 2, 4, 5):
        overwrite(tmp_path / "a.h5", b"\xff" * 8, at=chunks[number].byte_offset + 20)
    dataset = make_dataset(dataset_str=string)
    assert np.array_equal(np.asarray(dataset[3][0]), picture(3))
    assert dataset.get_image_data(3) == picture(3).tobytes()
    for number in (0, 1, 2, 4, 5):
        with pytest.raises(TileReadError, match=rf'tile {number} \("tile\[{number}\]" of .*a\.h5\) cannot be read'):
            dataset[number]


@pytest.mark.parametrize("options", [{}, {"chunks": (4, 16, 8, 3)}, {"chunks": (2, 16, 16, 3), "compression": "lzf"}])
def test_other_layouts_are_read_too(tmp_path, options, caplog):
    with caplog.at_level(logging.WARNING, logger="dinov2"):
        dataset = make_dataset(dataset_str=store(tmp_path / "a.h5", **options))
    for number in (5, 0, 3, 3, 1):
        assert np.array_equal(np.asarray(dataset[number][0]), picture(number))
    warned = f"a chunk of /tile holds {options['chunks'][0]} tiles" in caplog.text if options else caplog.text == ""
    assert warned
    assert not options or "chunks=(1, 16, 16, 3)" in caplog.text


def test_a_chunk_of_many_tiles_is_kept_between_reads(tmp_path):
    big = np.zeros((64, 128, 128, 3), np.uint8)
    string = store(tmp_path / "a.h5", big, chunks=big.shape, compression="gzip")
    with h5py.File(tmp_path / "a.h5") as file:
        where = file["tile"].id.get_chunk_info(0).byte_offset
    dataset = make_dataset(dataset_str=string)
    assert not np.asarray(dataset[0][0]).any()
    overwrite(tmp_path / "a.h5", b"\xff" * 64, at=where)
    assert not np.asarray(dataset[63][0]).any()  # would fail if it were read again


def test_labels_of_any_kind_over_several_files(tmp_path):
    strings = [store(tmp_path / name, TILES[:3]) for name in ("a.h5", "b.h5")]
    store(tmp_path / "a.h5", np.array([b"tumour", b"stroma", b"tumour"]), "texts")  # of fixed length
    store(tmp_path / "b.h5", ["fat", "stroma", "fat"], "texts")
    store(tmp_path / "a.h5", np.array([7, 3, 7], np.uint8), "numbers")
    store(tmp_path / "b.h5", np.array([-1, 10, 3]), "numbers")
    both = f"{strings[0]}:file={tmp_path}/b.h5"
    texts = make_dataset(dataset_str=f"{both}:label=texts")
    assert (texts.classes, texts.get_targets().tolist()) == (["fat", "stroma", "tumour"], [2, 1, 2, 0, 1, 0])
    numbers = make_dataset(dataset_str=f"{both}:label=numbers")
    assert (numbers.classes, numbers.get_targets().tolist()) == (["-1", "3", "7", "10"], [2, 1, 2, 0, 3, 1])
    assert make_dataset(dataset_str=both).get_targets().tolist() == [0] * 6
    assert numbers.locate(4).member == "tile[1]"
    assert numbers.locate(4).archive == str(tmp_path / "b.h5")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (TILES.astype(np.float32), "expected RGB tiles .* got .* and float32. Scale all tiles alike"),
        (TILES.transpose(0, 3, 1, 2), r"got \(6, 3, 16, 16\) and uint8. Channels seem to come first: store"),
        (TILES[..., 0], r"got \(6, 16, 16\) and uint8\.$"),
        (TILES[:0], r"got \(0, 16, 16, 3\)"),
        (TILES[0], r"got \(16, 16, 3\)"),
    ],
)
def test_arrays_that_are_no_tiles(tmp_path, array, message):
    with pytest.raises(UserError, match=message):
        make_dataset(dataset_str=store(tmp_path / "a.h5", array))


def test_files_that_cannot_be_used(tmp_path):
    string = store(tmp_path / "a.h5", key="group/tiles")
    for options, message in (
        ("", "no array 'tile', but .*group/tiles.*:key=group/tiles"),
        (":key=group", "no array 'group'"),
        (":key=group/tiles:label=none", "unknown array of .* 'none'"),
        (":key=group/tiles:label=few", r"expected a label for each of 6 tiles, .* got shape \(2,\)"),
        (":key=group/tiles:label=shares", "got shape .* and type float64"),
    ):
        with h5py.File(tmp_path / "a.h5", "a") as file:
            file.require_dataset("few", (2,), int)
            file.require_dataset("shares", (6,), float)
        with pytest.raises(UserError, match=message):
            make_dataset(dataset_str=string + options)
    assert len(make_dataset(dataset_str=f"{string}:key=group/tiles")) == 6
    (tmp_path / "b.h5").write_bytes(b"not HDF5")
    with pytest.raises(UserError, match=r"b\.h5 cannot be opened as an HDF5 file"):
        make_dataset(dataset_str=f"HDF5:file={tmp_path}/b.h5")


def test_a_file_that_changes_after_it_was_opened(tmp_path):
    dataset = make_dataset(dataset_str=store(tmp_path / "a.h5"))
    (tmp_path / "a.h5").unlink()
    store(tmp_path / "a.h5", TILES[:5])
    with pytest.raises(UserError, match=r"a\.h5 changed while it was in use: .*\(6, 16, 16, 3\), now \(5, 16, 16, 3\)"):
        dataset[0]


def test_locks_are_left_alone(tmp_path):
    string = store(tmp_path / "a.h5")
    with (tmp_path / "a.h5").open("r+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert np.array_equal(np.asarray(make_dataset(dataset_str=string)[0][0]), picture(0))


def test_without_h5py(tmp_path, monkeypatch):
    string = store(tmp_path / "a.h5")
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(UserError, match="pip install h5py"):
        make_dataset(dataset_str=string)
