"""Slides that two sets of tiles share."""

from pathlib import Path

import numpy as np
import pytest
from eval_making import write_tiles

from dinov2.data import make_dataset
from dinov2.data.groups import Groups
from dinov2.data.tar_index import GroupRequest, IndexRequest, group_entries, infer_entries
from dinov2.eval.leakage import find_overlap, names_with_tiles, slide_names


def opened(*strings: str):
    return make_dataset(dataset_str=strings[0] if len(strings) == 1 else strings)


@pytest.fixture
def tiles(tmp_path: Path) -> Path:
    return write_tiles(tmp_path / "tiles", slides=2)


@pytest.fixture
def tarball(tiles: Path, tmp_path: Path) -> Path:
    """The same tiles, packed and indexed."""
    import tarfile

    with tarfile.open(tmp_path / "pretrain_dataset.tar", "w") as tar:
        tar.add(tiles, arcname=".")
    infer_entries(IndexRequest(tmp_path / "pretrain_dataset.tar", tmp_path, "pretrain"))
    return tmp_path / "pretrain_dataset.tar"


SLIDES = {"slide00", "slide01", "slide10", "slide11"}


def test_slides_of_a_folder_of_a_tar_and_of_both(tiles, tarball, tmp_path):
    folder, tar = f"ImageFolder:root={tiles}", f"Pathology:root={tmp_path}:extra={tmp_path}"
    assert slide_names(opened(folder)) == SLIDES
    assert slide_names(opened(tar)) is None  # nobody has looked for its slides yet
    group_entries(GroupRequest(tarball, tmp_path, "pretrain"))
    assert slide_names(opened(tar)) == SLIDES
    other = write_tiles(tmp_path / "other", prefix="other", slides=1)
    assert slide_names(opened(tar, f"ImageFolder:root={other}")) == SLIDES | {"other00", "other10"}


def test_a_list_of_data_sets_of_which_only_some_know_their_slides(tiles, tmp_path):
    (tiles / "list.csv").write_text("path\nc0/slide00_0.png\n")
    unknown = f"CSV:file={tiles / 'list.csv'}"
    assert slide_names(opened(unknown)) is None
    assert slide_names(opened(unknown, f"ImageFolder:root={tiles}")) == SLIDES


def test_slides_without_tiles_do_not_count():
    assert names_with_tiles(Groups([[1, 0, 5]], ["none", "some"])) == {"some"}


def test_an_overlap_is_counted_and_shown():
    assert find_overlap("the test set", {"a", "b"}, "the query set", {"c"}) is None
    overlap = find_overlap("the test set", {"a", "b", "d", "e", "f"}, "the query set", {"f", "e", "d", "b", "x"})
    assert str(overlap) == ("4 of 5 slides of the test set, such as 'b', 'd', 'e', are in the query set as well")


def test_ten_million_tiles_are_compared_by_their_slides():
    slides, tiles = 20_000, 500  # 20 ms; tile by tile it would take minutes
    numbers = np.arange(slides)
    runs = np.column_stack([numbers, numbers * tiles, np.full(slides, tiles)])
    training = Groups(runs, [f"slide{number}" for number in numbers])
    overlap = find_overlap("the test set", {"slide7", "other"}, "the training set", names_with_tiles(training))
    assert overlap.shared == ["slide7"]


@pytest.mark.parametrize(
    ("name", "other", "same"),
    [
        ("TCGA-AA-3555-01Z-00-DX1", "TCGA-AA-3555", True),
        ("S12-00345", "S12-00345_2", True),
        ("patient_1_node_2", "patient_1_node_3", False),
        ("tumor_001", "tumor", False),
        ("S1", "S12", False),
    ],
)
def test_a_slide_told_in_more_detail_is_the_same(name, other, same):
    assert (find_overlap("the test set", {name}, "the query set", {other, "x"}) is not None) == same
    assert (find_overlap("the test set", {other}, "the query set", {name, "x"}) is not None) == same


def test_slides_of_some_tiles_are_compared(tmp_path, caplog):
    """Names that say nothing of most tiles do not hide the slides of the others."""
    root = write_tiles(tmp_path / "tiles", slides=2)
    for number in range(20):
        (root / "c0" / f"{number}.png").write_bytes(b"")
    assert slide_names(opened(f"ImageFolder:root={root}")) == SLIDES
    assert "slides are compared with those of other sets as far as they are known" in caplog.text
