"""What is wrong with labelled data sets is found before an image is read."""

import numpy as np
import pytest
import torch
from dataset_making import write_tar
from eval_making import write_tiles
from indexing import write_csv

from dinov2.data.datasets.image_folder import ImageFolderDataset
from dinov2.data.tar_index import IndexRequest, infer_entries
from dinov2.errors import UserError
from dinov2.eval.labelled import LabelledSet, label_features, match_sets, number_alike, open_labelled


def opened(string: str, name: str = "val", **options: str) -> LabelledSet:
    return open_labelled(name, string, transform=None, max_pixels=1 << 20, **options)


@pytest.fixture
def tiles(tmp_path):
    return write_tiles(tmp_path / "tiles")


def test_labels_classes_and_slides(tiles):
    found = opened(f"ImageFolder:root={tiles}")
    assert found.labels.tolist() == [0] * 12 + [1] * 12
    assert found.classes == ["c0", "c1"]
    assert number_alike([found.groups])[0].tolist() == [i // 3 for i in range(24)]
    assert found.summary()["samples_of_classes"] == {"c0": 12, "c1": 12}
    assert opened(f"ImageFolder:root={tiles}", group_by="none").groups is None


def test_a_list_without_labels(tiles):
    (tiles / "list.csv").write_text("path,kind\nc0/slide00_0.png,a\nc1/slide10_0.png,b\n")
    with pytest.raises(UserError, match="has no labels: a list needs label=COLUMN"):
        opened(f"CSV:file={tiles / 'list.csv'}")
    with pytest.raises(UserError, match="has no column 'class'; it has the columns path, kind"):
        opened(f"CSV:file={tiles / 'list.csv'}:label=class")
    assert opened(f"CSV:file={tiles / 'list.csv'}:label=kind").classes == ["a", "b"]


def test_a_tar_and_a_list_with_the_same_labels_go_together(tiles):
    labels = {"c0": "mucosa", "c1": "tumour"}
    paths = sorted(tiles.rglob("*.png"))
    write_csv(tiles / "labels.csv", [f"{path.name},{labels[path.parent.name]}" for path in paths])
    write_csv(tiles / "list.csv", [f"{path},{labels[path.parent.name]}" for path in paths])
    write_tar(tiles, tiles / "downstream_dataset.tar")
    request = IndexRequest(tiles / "downstream_dataset.tar", tiles, csv=tiles / "labels.csv", name="query")
    infer_entries(request)
    query = opened(f"KNN:root={tiles}:extra={tiles}:split=query", "query")
    assert query.classes == ["mucosa", "tumour"]
    (test,) = match_sets(query, [opened(f"CSV:file={tiles / 'list.csv'}:label=label")])
    assert test.labels.tolist() == [0] * 12 + [1] * 12


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
    assert opened(string).groups is None
    assert opened(string).sites is None
    with pytest.raises(UserError, match="cannot be grouped by cohort: .* tars that .*concat_entries.py has joined do"):
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
    with pytest.raises(UserError, match="no tile of 'c1', so that 12 of 36 tiles of the val set cannot be recognised"):
        match_sets(train, [three])
    (matched,) = match_sets(train, [three], allow_missing_classes=True)
    assert torch.equal(matched.labels, three.labels)
    assert "no tile of 'c1', so that 12 of 36" in caplog.text


def test_slides_and_sites_are_numbered_alike_in_all_sets(tiles):
    rows = [f"c{c}/slide{c}{s}_{t}.png,{c},p{s},h{s % 2}" for c in range(2) for s in range(4) for t in range(3)]
    (tiles / "train.csv").write_text("\n".join(["path,kind,patient,hospital", *rows[:18]]))
    (tiles / "val.csv").write_text("\n".join(["path,kind,patient,hospital", *rows[:5:-1]]))
    columns = ":label=kind:group=patient:site=hospital"
    sets = [opened(f"CSV:file={tiles / name}.csv{columns}", name) for name in ("train", "val")]
    assert (sets[0].summary()["groups"], sets[0].summary()["sites"]) == (4, 2)
    train, val = label_features(sets, [torch.zeros(18, 2), torch.ones(18, 2)])
    assert train.groups.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 0, 0, 0, 1, 1, 1]
    assert train.sites.tolist() == [0, 0, 0, 1, 1, 1] * 3
    assert val.groups.tolist() == [3, 3, 3, 2, 2, 2, 1, 1, 1, 0, 0, 0, 3, 3, 3, 2, 2, 2]
    assert val.sites.tolist() == [1, 1, 1, 0, 0, 0] * 3
    by_site = opened(sets[0].string, group_by="site")
    assert sorted(by_site.group_names()) == ["h0", "h1"]


def test_slides_on_both_sides(tmp_path, tiles, caplog):
    train = opened(f"ImageFolder:root={tiles}", "train")
    match_sets(train, [opened(f"ImageFolder:root={write_tiles(tmp_path / 'o', prefix='other')}")])
    assert "are in the train set" not in caplog.text
    match_sets(train, [opened(f"ImageFolder:root={tiles}")])
    assert "8 of 8 slides of the val set, such as 'slide00', 'slide01'" in caplog.text
    assert "are in the train set as well" in caplog.text


def test_slides_are_compared_whatever_tiles_are_grouped_by(tiles, caplog):
    rows = [f"c{c}/slide{c}{s}_{t}.png,{c},p{s},h{s % 2}" for c in range(2) for s in range(4) for t in range(3)]
    header = "path,kind,patient,hospital"
    for name, patients in (("train", "p0 p1"), ("val", "p2 p3")):
        mine = [row for row in rows if row.split(",")[2] in patients]
        (tiles / f"{name}.csv").write_text("\n".join([header, *mine]))
    string = f"CSV:file={tiles}/{{}}.csv:label=kind:group=patient:site=hospital"
    train, val = (opened(string.format(name), name, group_by="site") for name in ("train", "val"))
    match_sets(train, [val])
    assert "are in the train set" not in caplog.text  # which has both hospitals
    match_sets(train, [opened(string.format("train"), group_by="none")])
    assert "2 of 2 slides of the val set, such as 'p0', 'p1', are in the train set as well" in caplog.text


@pytest.mark.parametrize(("folder", "words"), [("nan", "class is missing"), ("NA", "missing"), ("-1", "may be")])
def test_folders_of_tiles_whose_class_is_not_known(tiles, folder, words):
    (tiles / "c0").rename(tiles / folder)
    with pytest.raises(UserError, match=f"the val set ImageFolder.*{words}"):
        opened(f"ImageFolder:root={tiles}")


def test_tiles_beside_the_folders_of_classes(tiles):
    next((tiles / "c0").iterdir()).rename(tiles / "stray_1.png")
    with pytest.raises(UserError, match="the class is missing; 1 of "):
        opened(f"ImageFolder:root={tiles}")


def test_slides_that_paths_do_not_tell(tiles, caplog):
    for number, path in enumerate(sorted(tiles.rglob("*.png"))):
        path.rename(path.with_name(f"{number}.png"))
    assert opened(f"ImageFolder:root={tiles}").groups is None
    assert "folds and intervals take every tile of the val set for itself" in caplog.text
    for kind in ("slide", "patient"):
        with pytest.raises(UserError, match=f"cannot be grouped by {kind}: which slide each tile"):
            opened(f"ImageFolder:root={tiles}", group_by=kind)
