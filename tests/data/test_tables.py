"""What cells and headings of csv files mean."""

from pathlib import Path

import pytest

from dinov2.data.tables import file_problem, heading_problem, is_missing, label_problem, plain_label


@pytest.mark.parametrize(
    "text", ["", "  ", "\u00a0", "nan", "NaN", " NA ", "N/A", "#N/A", "None", "NULL", "<NA>", "n.a.", "?", "#REF!"]
)
def test_missing_values(text: str) -> None:
    assert is_missing(text)
    assert "missing" in (label_problem(text) or "")


@pytest.mark.parametrize("text", ["0", "nano", "Nan Hospital", "NA12878", "-", "tumour"])
def test_values(text: str) -> None:
    assert not is_missing(text)
    assert label_problem(text) is None


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("-1", "not known"),
        ("-1.0", "not known"),
        ("-100", "not known"),
        ("1.5", "not a whole number"),
        ("1e3", "not a whole number"),
        ("-inf", "not a whole number"),
        ("0,5", "decimal comma"),
    ],
)
def test_labels_that_are_asked_about(text: str, problem: str) -> None:
    assert problem in (label_problem(text) or "")


@pytest.mark.parametrize(
    ("text", "label"),
    [("1.0", "1"), ("1.", "1"), (" 2 ", "2"), ("007", "007"), ("1_0", "1_0"), ("e\u0301", "\u00e9"), ("\ufeff3", "3")],
)
def test_labels_that_are_one_class(text: str, label: str) -> None:
    assert label_problem(text) is None
    assert plain_label(text) == label


@pytest.mark.parametrize(
    ("heading", "wanted", "problem"),
    [
        (["path;label;patient"], [], "semicolons"),
        (["path;label;size (x", "y)"], ["label"], "semicolons"),
        (["path\tlabel"], ["label"], "tabs"),
        (["path|label"], [], "bars"),
        (["path label"], ["label"], "blanks"),
        (["sep=;"], [], "only Excel knows"),
        (["sep=", ""], [], "only Excel knows"),
        (["a/t0.png", "tumour"], [], "names of the columns"),
        (["a/t0.JPG", "tumour"], ["label"], "names of the columns"),
        (["path", "Label"], ["label"], "did you mean Label"),
        (["path", "labels"], ["label"], "did you mean labels"),
        (["path", "label", " label"], ["label"], "2 columns"),
        (["path", "label", "path"], [], "2 columns"),
        (["", ""], [], "empty"),
        ([], [], "empty"),
    ],
)
def test_headings_that_cannot_be_used(heading: list[str], wanted: list[str], problem: str) -> None:
    assert problem in (heading_problem(heading, wanted) or "")


@pytest.mark.parametrize(
    ("heading", "wanted"),
    [(["path"], []), (["image path"], []), (["path", "", ""], ["path"]), (["\ufeffpath", "x;y"], ["path"])],
)
def test_headings_that_can(heading: list[str], wanted: list[str]) -> None:
    assert heading_problem(heading, wanted) is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("path,label\n".encode("utf-16"), "UTF-16"),
        ("path,label\n".encode("utf-16-le"), "UTF-16"),
        (b"PK\x03\x04 and more", "spreadsheet"),
        (b"PAR1 and more", "Parquet"),
        ("path,label\na.png,\u00e9\n".encode("utf-8-sig"), None),
        (b"", None),
    ],
)
def test_files_that_are_no_csv(tmp_path: Path, content: bytes, problem: str | None) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    found = file_problem(tmp_path / "list.csv")
    assert found is None if problem is None else problem in (found or "")
