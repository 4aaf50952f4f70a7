"""Tiles of one tar and of many: right bytes, bounded memory and handles, errors that name the file."""

import logging
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from tar_making import END, member, noise

from dinov2.data import make_dataset
from dinov2.data.datasets import TileReadError, tar_tiles
from dinov2.data.file_reader import FileChangedError, FileReader, RowReader
from dinov2.data.tar_index import (
    ConcatRequest,
    IndexRequest,
    SideFileError,
    StaleIndexError,
    VerifyRequest,
    concat_entries,
    infer_entries,
    verify_dataset,
)
from dinov2.errors import UserError

COHORTS = {"A": 3, "B": 2, "C": 4}


def tile(cohort: str, number: int) -> bytes:
    return noise(ord(cohort) + 100 * number, 50 + 9 * number)


@pytest.fixture
def cohorts(tmp_path: Path) -> Path:
    """A.tar, B.tar and C.tar with 3, 2 and 4 tiles, and their joined index."""
    for cohort, count in COHORTS.items():
        tiles = (member(f"{cohort}{i}.jpg".encode(), tile(cohort, i)) for i in range(count))
        (tmp_path / f"{cohort}.tar").write_bytes(b"".join(tiles) + END)
        infer_entries(IndexRequest(tmp_path / f"{cohort}.tar", tmp_path, cohort))
        verify_dataset(VerifyRequest(tmp_path / f"{cohort}.tar", tmp_path, cohort, decode=False, write_crc=True))
    concat_entries(ConcatRequest(tmp_path, tmp_path))
    return tmp_path


def foundation(folder: Path, options: str = "") -> tar_tiles.TarTileDataset:
    return make_dataset(dataset_str=f"PathologyFoundation:root={folder}:extra={folder}{options}")


def test_rows_of_several_tars_give_the_bytes_of_their_own(cohorts):
    dataset = foundation(cohorts)
    expected = [tile(cohort, i) for cohort, count in COHORTS.items() for i in range(count)]
    order = np.random.default_rng(0).permutation(len(expected)).tolist()
    assert len(dataset) == len(expected)
    assert [dataset.get_image_data(i) for i in order] == [expected[i] for i in order]
    place = dataset.locate(4)
    assert (Path(place.archive).name, place.member) == ("B.tar", "B1.jpg")
    assert place.end - place.start == len(tile("B", 1))


def test_few_tars_are_open_at_a_time(cohorts, monkeypatch):
    monkeypatch.setattr(tar_tiles, "MAX_OPEN_TARS", 2)
    dataset = foundation(cohorts)

    def open_tars() -> set[str]:
        links = (path.readlink() for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return {link.name for link in links if link.parent == cohorts and link.suffix == ".tar"}

    for index in (0, 3, 5, 0, 3, 4, 8):
        dataset.get_image_data(index)
        assert len(open_tars()) <= 2
    assert open_tars() == {"B.tar", "C.tar"}


def test_a_subset_of_the_cohorts_needs_only_their_tars(cohorts):
    for cohort in "AC":
        infer_entries(IndexRequest(cohorts / f"{cohort}.tar", cohorts, cohort, "part"))
    concat_entries(ConcatRequest(cohorts, cohorts, "part"))
    (cohorts / "B.tar").unlink()
    dataset = foundation(cohorts, ":subset=part")
    assert len(dataset) == 7 and dataset.get_image_data(3) == tile("C", 0)
    with pytest.raises(UserError, match=r"B\.tar does not exist"):
        foundation(cohorts)


def test_cohorts_of_the_fork_without_records(cohorts):
    (cohorts / "pretrain_index.json").unlink()
    (cohorts / "pretrain_crc32.npy").unlink()
    assert foundation(cohorts).get_image_data(8) == tile("C", 3)
    entries = np.load(cohorts / "pretrain_entries.npy")
    entries[8, 3] = 10**6
    np.save(cohorts / "pretrain_entries.npy", entries)
    with pytest.raises(StaleIndexError, match="row 8 "):
        foundation(cohorts)
    entries[8, 3], entries[8, 4] = entries[7, 3], 9
    np.save(cohorts / "pretrain_entries.npy", entries)
    with pytest.raises(UserError, match="cohort number 9, which has no tar"):
        foundation(cohorts).get_image_data(8)


@pytest.mark.parametrize("hostile", ["../A", "x/../../A", "", ".A", "A\n"])
def test_a_cohort_name_cannot_lead_out_of_the_folder(cohorts, hostile):
    (cohorts / "pretrain_index.json").unlink()
    np.save(cohorts / "cohort_indices.npy", np.array({0: hostile, 1: "B", 2: "C"}, dtype=object))
    with pytest.raises(UserError, match="cannot be part of a file name"):
        foundation(cohorts)


def test_an_index_of_one_tar_is_no_foundation(cohorts):
    infer_entries(IndexRequest(cohorts / "A.tar", cohorts, "pretrain", "one"))
    with pytest.raises(SideFileError, match="of a single tar"):
        foundation(cohorts, ":subset=one")
    with pytest.raises(UserError, match=r"concat_entries\.py --root .* --suffix none"):
        foundation(cohorts, ":subset=none")


def test_changed_bytes_are_a_bad_tile(cohorts):
    dataset = foundation(cohorts)
    place = dataset.locate(1)
    with (cohorts / "A.tar").open("r+b") as file:
        file.seek(place.start + 5)
        file.write(b"changed")
    with pytest.raises(TileReadError, match=r'tile 1 \("A1\.jpg" of .*A\.tar at bytes .* expected CRC-32') as caught:
        dataset.get_image_data(1)
    assert caught.value.place == place


def test_values_of_other_entries_are_refused(cohorts):
    (cohorts / "pretrain_crc32.npy").write_bytes((cohorts / "C_crc32.npy").read_bytes())
    with pytest.raises(StaleIndexError):
        foundation(cohorts)


def test_memory_does_not_follow_the_index(tmp_path):
    rows = 4_000_000
    path = tmp_path / "entries.npy"
    entries = np.lib.format.open_memmap(path, "w+", "<u8", (rows, 4))
    entries[:, 2] = np.arange(rows)
    entries.flush()
    reader = RowReader(path, dtype="<u8")
    before = resident_mib()
    chosen = np.random.default_rng(0).integers(0, rows, 20_000).tolist()
    assert all(int(reader[row][2]) == row for row in chosen)
    grown = resident_mib() - before
    assert grown < 10, f"{grown:.1f} MiB more after reading from an index of {path.stat().st_size / 2**20:.0f} MiB"
    print(f"{grown:.1f} MiB more")


def resident_mib() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_rows_outside_the_array_are_refused(tmp_path):
    np.save(tmp_path / "v.npy", np.arange(5, dtype="<u4"))
    reader = RowReader(tmp_path / "v.npy", dtype="<u4")
    assert [int(reader[i][0]) for i in range(len(reader))] == [0, 1, 2, 3, 4]
    for row in (-1, 5):
        with pytest.raises(IndexError):
            reader[row]
    with pytest.raises(SideFileError, match="expected elements of type"):
        RowReader(tmp_path / "v.npy", dtype="<u8")


def test_every_process_has_a_handle_of_its_own(tmp_path):
    (tmp_path / "file").write_bytes(b"0123456789")
    reader = FileReader(tmp_path / "file")
    assert reader.read(2, 5) == b"234"
    copy = pickle.loads(pickle.dumps(reader))
    assert copy.read(0, 10) == b"0123456789"
    child = os.fork()
    if child == 0:
        parents = reader._descriptor
        good = reader.read(0, 3) == b"012" and reader._descriptor != parents
        reader.close()
        os._exit(0 if good else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert reader.read(7, 10) == b"789"  # the child has not closed the parent's
    with pytest.raises(FileChangedError, match="ends before byte 11"):
        reader.read(7, 11)
    with pytest.raises(UserError, match="gone does not exist. Look elsewhere"):
        FileReader(tmp_path / "gone", advice="Look elsewhere")


def test_an_index_without_checksums_says_how_they_are_recorded(cohorts, caplog):
    with caplog.at_level(logging.INFO, logger="dinov2"):
        foundation(cohorts)
        assert "CRC-32" not in caplog.text
        (cohorts / "pretrain_crc32.npy").unlink()
        foundation(cohorts)
    command = f"verify_dataset.py --tarball_path {cohorts} --output_root {cohorts} --name pretrain --write_crc"
    assert command in caplog.text
    request = VerifyRequest(cohorts, cohorts, "pretrain", decode=False, write_crc=True)
    assert verify_dataset(request).good and foundation(cohorts).checksums_digest()
