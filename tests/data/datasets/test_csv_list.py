"""Images named in a table, and tables that cannot be used."""

import logging
from pathlib import Path

import numpy as np
import pytest
from dataset_making import picture, write_pictures

from dinov2.data import make_dataset
from dinov2.data.datasets import TileReadError
from dinov2.errors import UserError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six pictures, tile_0.png to tile_5.png."""
    write_pictures(tmp_path / "images", "tile_{number}.png")
    return tmp_path


def table(folder: Path, *rows: str, encoding: str = "utf-8") -> str:
    (folder / "list.csv").write_text("\n".join([*rows, ""]), encoding=encoding)
    return f"CSV:file={folder}/list.csv"


def numbers(dataset) -> list[int]:
    """Which picture each tile is."""
    pictures = [picture(number).tolist() for number in range(6)]
    return [pictures.index(np.asarray(dataset[index][0]).tolist()) for index in range(len(dataset))]


def test_absolute_paths_in_the_first_column(folder):
    dataset = make_dataset(dataset_str=table(folder, "", f"path,x\n{folder}/images/tile_3.png,7"))
    assert numbers(dataset) == [3]
    assert (dataset.classes, dataset.get_targets().tolist()) == ([""], [0])


def test_relative_paths_start_from_the_table_or_the_root(folder):
    rows = ("name,file", "a,images/tile_1.png", "", "b,images/../images/tile_0.png")
    assert numbers(make_dataset(dataset_str=table(folder, *rows) + ":column=file")) == [1, 0]
    string = table(folder, "file", "tile_2.png", f"{folder}/images/tile_4.png") + f":root={folder}/images"
    assert numbers(make_dataset(dataset_str=string)) == [2, 4]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_labels(folder, encoding):
    rows = ("file, stage", "images/tile_5.png,10", "images/tile_0.png, 9", "images/tile_1.png,10")
    dataset = make_dataset(dataset_str=table(folder, *rows, encoding=encoding) + ":label=stage:column=file")
    assert dataset.classes == ["9", "10"]
    assert dataset.get_targets().tolist() == [1, 0, 1]


def test_one_is_a_label_in_any_spelling(folder):
    rows = (
        "p,k",
        "images/tile_0.png,1.0",
        "images/tile_1.png,1",
        "images/tile_2.png,\u00a001",
        "images/tile_3.png,0.0",
    )
    dataset = make_dataset(dataset_str=table(folder, *rows) + ":label=k")
    assert (dataset.classes, dataset.get_targets().tolist()) == (["0", "1"], [1, 1, 1, 0])


def test_slides_and_sites(folder):
    rows = [f"images/tile_{number}.png, p{number % 2},{10 - number // 2}" for number in range(6)]
    string = table(folder, "file,patient,hospital", *rows)
    dataset = make_dataset(dataset_str=f"{string}:group=patient:site=hospital")
    names = {
        kind: [groups.names[number] for number in groups.of(np.arange(6))]
        for kind, groups in ((kind, dataset.get_groups(kind)) for kind in ("slide", "site"))
    }
    assert names == {"slide": ["p0", "p1"] * 3, "site": ["10", "10", "9", "9", "8", "8"]}
    with pytest.raises(UserError, match="does not know the cohort"):
        dataset.get_groups("cohort")
    with pytest.raises(UserError, match="site=COLUMN; it has the columns file, patient, hospital"):
        make_dataset(dataset_str=f"{string}:group=patient").get_groups("site")


def test_quoted_paths_with_commas_and_newlines(folder):
    names = ['a, "b".png', "c\nd.png"]
    for name in names:
        (folder / name).hardlink_to(folder / "images" / "tile_0.png")
    dataset = make_dataset(dataset_str=table(folder, "file", '"a, ""b"".png"', '"c\nd.png"'))
    assert [dataset.path_of(index).name for index in range(2)] == names


@pytest.mark.parametrize(
    ("rows", "options", "message"),
    [
        (
            ["path,kind", "images/tile_0.png,a"],
            ":column=pth",
            r"list\.csv has no column 'pth'; it has the columns path, kind",
        ),
        (["path,path", "a,b"], ":column=path", "2 columns that are called 'path'"),
        (["path,kind", "images/tile_0.png,"], ":label=kind", r"\n  row 2: the label is missing"),
        (["path,kind", "images/tile_0.png,"], ":group=kind", r"row 2: the slide is missing"),
        (["path,kind", "images/tile_0.png,"], ":site=kind", r"row 2: the site is missing"),
        (["p,kind", "images/tile_0.png,nan", "x,NA"], ":group=kind", r"row 2: the slide is missing .*nan.*\n  row 3"),
        (["path,kind", "images/tile_0.png,-1"], ":label=kind", "row 2: the label .-1. may be a class or stand for"),
        (["path;kind", "images/tile_0.png;1,5"], ":label=kind", "semicolons between its columns.*sep=.;., decimal"),
        (["images/tile_0.png", "images/tile_1.png"], "", "begins with an image, .images/tile_0.png"),
        (["path,kind,path", "images/tile_0.png,a,b"], ":label=kind", "2 columns that are called 'path'"),
        (["path,kind", "a,1", "", ",2"], "", r"\n  row 4: the path is empty"),
        (["path,kind", " ,2"], "", r"row 2: the path ' ' cannot be one"),
        (["path,kind", "a,b.png,1"], "", "row 2: it has 3 cells, the header 2; a path that contains a comma"),
        (["path"], "", "has a header and no images below it"),
        ([], "", "is empty"),
        (["path", *[","] * 9], "", r"row 6: .*\n  and 4 more"),
        (["path", "images/none.png", "images/tile_0.png"], "", r"row 2 of .* images/none\.png does not exist"),
        (["path", "images/tile_0.png", "", "none.png"], "", r"row 4 of .*none\.png does not exist.* root=\.\.\."),
        ([",path,k", "0,images/tile_0.png,a"], "", "does not exist.* first column, ''; column=... names another"),
        (["path,k", "images/tile_0.png,a", "b,a", "images/tile_0.png,b"], ":label=k", "row 4: .* than in row 2"),
    ],
)
def test_tables_that_cannot_be_used(rows, options, message, folder):
    message = message.replace(" images/none", f" {folder}/images/none")
    with pytest.raises(UserError, match=message):
        make_dataset(dataset_str=table(folder, *rows) + options)


def test_files_that_are_no_tables(folder):
    with pytest.raises(UserError, match="does not exist"):
        make_dataset(dataset_str=f"CSV:file={folder}/none.csv")
    with pytest.raises(UserError, match="cannot be read as comma-separated UTF-8: 'utf-8' codec"):
        make_dataset(dataset_str=table(folder, "päth", encoding="latin-1"))
    with pytest.raises(UserError, match="is UTF-16 or binary.*CSV UTF-8"):
        make_dataset(dataset_str=table(folder, "path\timage", encoding="utf-16"))
    with pytest.raises(UserError, match="field larger than field limit"):
        make_dataset(dataset_str=table(folder, "path", "a" * 200_000))
    with pytest.raises(UserError, match="Is a directory"):
        make_dataset(dataset_str=f"CSV:file={folder}")


def test_images_named_again_are_counted(folder, caplog):
    rows = ("path", "images/tile_0.png", "images/tile_1.png", "images/tile_0.png", "images/tile_0.png")
    with caplog.at_level(logging.WARNING, logger="dinov2"):
        assert numbers(make_dataset(dataset_str=table(folder, *rows))) == [0, 1, 0, 0]
    assert "names 2 images again" in caplog.text
    assert "'images/tile_0.png' in rows 2 and 4" in caplog.text


def test_names_of_equal_hash_are_told_apart(folder, caplog, monkeypatch):
    monkeypatch.setattr("dinov2.data.datasets.repeats.hash", lambda name: 7, raising=False)
    assert numbers(make_dataset(dataset_str=table(folder, "p", "images/tile_0.png", "images/tile_1.png"))) == [0, 1]
    assert "again" not in caplog.text


def test_a_file_in_between_is_missed_when_it_is_read(folder):
    dataset = make_dataset(dataset_str=table(folder, "p", "images/tile_0.png", "gone.png", "images/tile_1.png"))
    with pytest.raises(TileReadError, match=r"tile 1 \(.*gone\.png\) cannot be read: No such file"):
        dataset[1]
    assert np.array_equal(np.asarray(dataset[2][0]), picture(1))
