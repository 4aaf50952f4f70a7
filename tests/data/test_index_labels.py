"""Labels of any kind reach the right tiles, and every row that cannot be used is named."""

from pathlib import Path

import numpy as np
import pytest
from indexing import index, write_csv, write_list

from dinov2.data.tar_index import (
    LabelColumns,
    LabelError,
    load_class_ids,
    load_entries,
)


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
        (["-1", "7", "-1", "+7"], [0, 1, 0, 1], [-1, 7]),
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
    "NaN": (["t0.jpg,0", "t1.jpg,1", "t2.jpg,NaN"], r"row 4: the label is missing \(NaN\)"),
    "float": (["t0.jpg,1.0"], r'row 2: the label "1.0" is not a whole number'),
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


def test_wrong_columns_are_listed(tar: Path) -> None:
    with pytest.raises(LabelError, match='no column "label"; found "filename", "grade"'):
        index(tar, csv=write_csv(tar.parent / "l.csv", [], "filename,grade"))
    with pytest.raises(LabelError, match='found "filename;label".*commas'):
        index(tar, csv=write_csv(tar.parent / "l.csv", [], "filename;label"))
    (tar.parent / "l.csv").write_bytes(b"")
    with pytest.raises(LabelError, match="the file is empty"):
        index(tar, csv=tar.parent / "l.csv")


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
