"""Labels of any kind reach the right tiles, and every row that cannot be used is named."""

from pathlib import Path

import numpy as np
import pytest
from indexing import index, write_csv, write_list
from tar_making import END, member

from dinov2.data.tar_index import (
    LabelColumns,
    LabelError,
    SelectionError,
    load_class_ids,
    load_entries,
)
from dinov2.data.tar_index import labels as labels_module


def labelled(tar: Path, labels: list[str], **fields: object) -> tuple[list[int], list[tuple[int | str, str]]]:
    """Class indices of t0 to t9 with these labels, and the class table."""
    write_csv(tar.parent / "l.csv", [f"t{i}.jpg,{label}" for i, label in enumerate(labels)])
    keep = write_list(tar.parent, *(f"t{i}.jpg" for i in range(len(labels))))
    index(tar, csv=tar.parent / "l.csv", keep=keep, **fields)
    return load_entries(tar.parent / "entries.npy")[:, 0].tolist(), load_class_ids(tar.parent / "class-ids.npy")


@pytest.mark.parametrize(
    ("labels", "codes", "classes"),
    [
        (["0", "1", "2", "0"], [0, 1, 2, 0], [0, 1, 2]),
        (["2", "1", "0", "2"], [2, 1, 0, 2], [0, 1, 2]),
        (["3", "1", "10", "3"], [1, 0, 2, 1], [1, 3, 10]),
        (["1", "7", "1.0", "+7"], [0, 1, 0, 1], [1, 7]),
        (["cafe\u0301", "x", "caf\u00e9", " x "], [0, 1, 0, 1], ["caf\u00e9", "x"]),
        (["tumour", "stroma", "é", "tumour"], [1, 0, 2, 1], ["stroma", "tumour", "é"]),
        (["1", "x", "2", "1"], [0, 2, 1, 0], ["1", "2", "x"]),
        (["18446744073709551617", "0", "0", "0"], [1, 0, 0, 0], [0, 2**64 + 1]),
    ],
)
def test_labels_of_any_kind(tar: Path, labels: list[str], codes: list[int], classes: list[int | str]) -> None:
    found, table = labelled(tar, labels)
    assert found == codes
    assert [label for label, _ in table] == classes
    assert np.load(tar.parent / "class-ids.npy", allow_pickle=True).tolist() == [list(row) for row in table]


def test_class_names_other_columns_quotes_and_blank_lines(tar: Path) -> None:
    text = 'grade,tile,what\n\n2,a/same.jpg,"bad, very"\n0,t1.jpg,good\n\n2,b/same.jpg,"bad, very"\n\n'
    (tar.parent / "l.csv").write_text(text, encoding="utf-8-sig")
    columns = LabelColumns(file="tile", label="grade", class_name="what")
    index(
        tar,
        csv=tar.parent / "l.csv",
        keep=write_list(tar.parent, "t1.jpg", "a/same.jpg", "b/same.jpg"),
        columns=columns,
    )
    assert load_entries(tar.parent / "entries.npy")[:, 0].tolist() == [0, 1, 1]
    assert load_class_ids(tar.parent / "class-ids.npy") == [(0, "good"), (2, "bad, very")]


PROBLEMS = {
    "missing label": (["t0.jpg,0", "t1.jpg,"], r"row 3: the label is missing"),
    "NaN": (["t0.jpg,0", "t1.jpg,1", "t2.jpg,NaN"], r'row 4: the label is missing \("NaN"\)'),
    "NA": (["t0.jpg,NA", "t1.jpg,1"], r'row 2: the label is missing \("NA"\)'),
    "blank": (["t0.jpg,0", 't1.jpg,"  "'], r"row 3: the label is missing"),
    "-1": (["t0.jpg,0", "t1.jpg,-1"], r'row 3: the label "-1" may be a class or stand for "not known"'),
    "-1.0": (["t0.jpg,0", "t1.jpg,-1.0"], r'row 3: the label "-1" may be a class'),
    "float": (["t0.jpg,1.5"], r'row 2: the label "1.5" is not a whole number'),
    "infinite": (["t0.jpg,inf"], r'row 2: the label "inf" is not a whole number'),
    "two labels": (
        ["t0.jpg,0", "t1.jpg,1", "t0.jpg,1"],
        r'"t0.jpg" has label "0" in row 2 and "t0.jpg" has label "1" in row 4',
    ),
    "by name and by path": (
        ["t0.jpg,0", "a/t0.jpg,1"],
        r'"t0.jpg" has label "0" in row 2 and "a/t0.jpg" has label "1" in row 3',
    ),
    "missing name": (["t0.jpg,0", ",1"], r"row 3: the file name is missing"),
    "short row": (["t0.jpg,0", "t1.jpg"], r"row 3: the row has 1 fields, expected at least 2"),
    "after blank lines": (["t0.jpg,0", "", "", "t1.jpg,"], r"row 5: the label is missing"),
    "tile without row": (["t1.jpg,0"], r'no row for 1 of the selected tiles: "a/t0.jpg"'),
}


@pytest.mark.parametrize("case", sorted(PROBLEMS))
def test_label_problems_name_the_row(tar: Path, case: str) -> None:
    rows, message = PROBLEMS[case]
    with pytest.raises(LabelError, match=message):
        index(tar, csv=write_csv(tar.parent / "l.csv", rows), keep=write_list(tar.parent, "t0.jpg"))
    assert not (tar.parent / "entries.npy").exists()


def test_problems_are_listed_together_and_counted(tar: Path) -> None:
    rows = [f"t{i}.jpg,{i}.5" for i in range(30)]
    with pytest.raises(LabelError, match="and 20 more") as error:
        index(tar, csv=write_csv(tar.parent / "l.csv", rows))
    assert all(f"row {i}:" in str(error.value) for i in range(2, 12))


def test_one_label_with_two_class_names(tar: Path) -> None:
    table = write_csv(tar.parent / "l.csv", ["t0.jpg,0,a", "t1.jpg,0,b"], "filename,label,class")
    with pytest.raises(LabelError, match=r'row \d: label "0" is called "[ab]", elsewhere "[ab]"'):
        index(tar, csv=table)


HEADINGS = {
    "another name": (b"filename,grade\n", r"no column 'label'; it has the columns filename, grade.*--label_name"),
    "semicolons": (b"filename;label\n", "semicolons between its columns, expected commas"),
    "tabs": (b"filename\tlabel\n", "tabs between its columns"),
    "a label column twice": (b"filename,label,label\n", "2 columns that are called 'label'"),
    "a name column twice": (b"filename,filename,label\n", "2 columns that are called 'filename'"),
    "a class column twice": (b"filename,class,label,class\n", "2 columns that are called 'class'"),
    "no heading": (b"t0.jpg,0\n", "begins with an image"),
    "nothing": (b"", "is empty"),
    "UTF-16": ("filename,label\n".encode("utf-16"), "is UTF-16"),
    "xlsx": (b"PK\x03\x04....", "is a spreadsheet"),
}


@pytest.mark.parametrize("case", HEADINGS)
def test_tables_of_another_form_are_told_as_what_they_are(tar: Path, case: str) -> None:
    content, message = HEADINGS[case]
    (tar.parent / "l.csv").write_bytes(content)
    with pytest.raises(LabelError, match=message):
        index(tar, csv=tar.parent / "l.csv")


def test_names_in_another_encoding_are_told_as_the_reason(tmp_path: Path) -> None:
    tar = tmp_path / "t.tar"
    tar.write_bytes(member("Pr\u00e4parat.jpg".encode(), b"x") + END)
    (tmp_path / "l.csv").write_bytes("filename,label\nPr\u00e4parat.jpg,1\n".encode("latin-1"))
    with pytest.raises(LabelError, match="not in UTF-8.*iconv"):
        index(tar, csv=tmp_path / "l.csv")
    (tmp_path / "keep.txt").write_bytes("Pr\u00e4parat.jpg\n".encode("latin-1"))
    assert "not in UTF-8" in index(tar, keep=tmp_path / "keep.txt").warnings[0]
    (tmp_path / "keep.txt").write_text("Pr\u00e4parat.jpg\n", encoding="utf-16")
    with pytest.raises(SelectionError, match="UTF-16.*expected UTF-8"):
        index(tar, keep=tmp_path / "keep.txt")


def test_labels_in_another_encoding_are_refused(tmp_path: Path) -> None:
    (tmp_path / "l.csv").write_bytes("filename,label\na.jpg,L\u00e4sion\n".encode("latin-1"))
    with pytest.raises(LabelError, match=r"row 2: the label .* is not in UTF-8"):
        labels_module.LabelTable(tmp_path / "l.csv", columns=LabelColumns())


def test_the_same_row_twice_is_no_problem(tar: Path) -> None:
    table = write_csv(tar.parent / "l.csv", ["t0.jpg,1", "t0.jpg,1", "t1.jpg,0"])
    assert index(tar, csv=table, keep=write_list(tar.parent, "t0.jpg", "t1.jpg")).tiles == 2


def test_splits_share_one_class_table(tar: Path) -> None:
    _, table = labelled(tar, ["a", "b", "c", "b"], name=None, suffix=None)
    write_csv(tar.parent / "test.csv", ["t4.jpg,c", "t5.jpg,a"])
    index(tar, name="test", csv=tar.parent / "test.csv", keep=write_list(tar.parent, "t4.jpg", "t5.jpg"))
    assert load_entries(tar.parent / "test_entries.npy")[:, 0].tolist() == [2, 0]
    assert load_class_ids(tar.parent / "class-ids.npy") == table
    write_csv(tar.parent / "test.csv", ["t4.jpg,d", "t5.jpg,a"])
    with pytest.raises(LabelError, match=r'"d: class_d".*"entries.npy"'):
        index(tar, name="test", csv=tar.parent / "test.csv", keep=write_list(tar.parent, "t4.jpg", "t5.jpg"))
    (tar.parent / "entries.npy").unlink()
    index(tar, name="test", csv=tar.parent / "test.csv", keep=write_list(tar.parent, "t4.jpg", "t5.jpg"))
    assert load_class_ids(tar.parent / "class-ids.npy") == [("a", "class_a"), ("d", "class_d")]


@pytest.mark.parametrize("quoted_from", [0, 1, 700, 2000])
@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_plain_lines_and_quoted_ones_are_read_alike(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quoted_from: int, ending: str
) -> None:
    """Lines that commas alone divide are split in chunks; from the first one with a quote on, the csv module reads."""
    monkeypatch.setattr(labels_module, "CHUNK_BYTES", 300)
    rows = [f"{i}.jpg,,{i % 5},c{i % 5}" for i in range(quoted_from)]
    rows += [f'"{i}.jpg","a, ""b""\n",{i % 5},c{i % 5}' for i in range(quoted_from, 2000)]
    (tmp_path / "l.csv").write_bytes(ending.join(["filename,note,label,class", *rows]).encode())
    (tmp_path / "t.tar").write_bytes(b"".join(member(b"%d.jpg" % i) for i in range(2000)) + END)
    index(tmp_path / "t.tar", csv=tmp_path / "l.csv")
    assert (load_entries(tmp_path / "entries.npy")[:, 0] == np.arange(2000) % 5).all()
    assert load_class_ids(tmp_path / "class-ids.npy") == [(i, f"c{i}") for i in range(5)]


def test_rows_after_those_that_are_split_keep_their_numbers(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels_module, "CHUNK_BYTES", 50)
    rows = [f"x{i}.jpg,{i % 3}" for i in range(100)]
    with pytest.raises(LabelError, match="row 103: the label is missing"):
        index(tar, csv=write_csv(tar.parent / "l.csv", [*rows, "", "t0.jpg,"]))
    with pytest.raises(LabelError, match='label "0" in row 2 and .* label "1" in row 102'):
        index(tar, csv=write_csv(tar.parent / "l.csv", [*rows, "x0.jpg,1"]))
