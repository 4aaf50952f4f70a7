"""scripts/infer_entries.py: the same index as clemsgrs/dinov2 makes, but for what is deliberate; every fault named."""

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tar_making import BLOCK, END, header, member, noise

from dinov2.data.tar_index import (
    ArchiveError,
    IndexReport,
    IndexRequest,
    LabelColumns,
    LabelError,
    SelectionError,
    SideFileError,
    StaleIndexError,
    check_entries,
    check_fingerprint,
    infer_entries,
    load_class_ids,
    load_entries,
    load_names,
)
from dinov2.data.tar_index import infer as infer_module

ROOT = Path(__file__).parents[2]
GOLDENS = Path(__file__).parent / "goldens" / "entries"
EXPECTED = json.loads((GOLDENS / "expected.json").read_text())


def index(tar: Path, **fields: object) -> IndexReport:
    """Index into the folder of the tar."""
    fields = {key: Path(str(value)) if key in ("keep", "remove", "csv") else value for key, value in fields.items()}
    return infer_entries(IndexRequest(tar, tar.parent, **fields))  # type: ignore[arg-type]


def run(script: str, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, from another folder and without the package on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd or "/", env=environment, check=False)


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    """Ten tiles t0.jpg to t9.jpg in a/ and b/, and same.jpg in both."""
    path = tmp_path / "tiles.tar"
    names = [f"{'ab'[i % 2]}/t{i}.jpg" for i in range(10)] + ["a/same.jpg", "b/same.jpg"]
    path.write_bytes(b"".join(member(name.encode(), noise(i, 100 + 70 * i)) for i, name in enumerate(names)) + END)
    return path


def write_csv(path: Path, rows: list[str], heading: str = "filename,label") -> Path:
    path.write_text("\n".join([heading, *rows]) + "\n")
    return path


# --- the figures of the reference --------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar"])
@pytest.mark.parametrize("case", ["all", "keep", "remove", "labels"])
def test_goldens(tmp_path: Path, form: str, case: str) -> None:
    """Equal to the reference, except for its ambiguous patch3.jpg, the empty text file and the hard link."""
    shutil.copy(GOLDENS / f"tiles_{form}.tar", tmp_path)
    expected = EXPECTED[f"{form}_{case}"]["files"]
    [entries_file] = [name for name in expected if "entries" in name]
    [names_file] = [name for name in expected if "file_indices" in name]
    keep, labels = tmp_path / "keep.txt", tmp_path / "labels.csv"
    keep.write_text((GOLDENS / "keep.txt").read_text().replace("patch3.jpg", "tiles/patch3.jpg\ntiles/sub/patch3.jpg"))
    table = (GOLDENS / "labels.csv").read_text()
    labels.write_text(table.replace("patch3.jpg,0", "tiles/patch3.jpg,0\ntiles/sub/patch3.jpg,0"))
    flags = {
        "all": {"name": "pretrain"},
        "keep": {"name": "pretrain", "keep": keep, "suffix": "train"},
        "remove": {"name": "pretrain", "remove": keep, "suffix": "rest"},
        "labels": {"name": "query", "csv": labels, "keep": keep},
    }[case]
    index(tmp_path / f"tiles_{form}.tar", **flags)

    names = {int(key): name for key, name in expected[names_file].items()}
    rows = [row for row in expected[entries_file] if names[row[1]] != "empty.txt"]
    if case in ("all", "remove"):
        first = EXPECTED[f"{form}_all"]["files"]["pretrain_entries.npy"][0]
        rows.append([0, len(names), first[2], first[3]])
    found = np.load(tmp_path / entries_file)
    assert found.dtype == np.dtype("<u8") and found.flags.c_contiguous
    assert found.tolist() == rows
    assert np.load(tmp_path / names_file, allow_pickle=True).item() == names | {len(names): "hard.jpg"}
    assert load_names(tmp_path / names_file) == names | {len(names): "hard.jpg"}
    if case == "labels":
        assert np.load(tmp_path / "class-ids.npy", allow_pickle=True).tolist() == expected["class-ids.npy"]


@pytest.mark.parametrize("flag", ["keep", "remove"])
def test_the_goldens_ambiguous_list_is_refused_with_the_members(tmp_path: Path, flag: str) -> None:
    shutil.copy(GOLDENS / "tiles_gnu.tar", tmp_path)
    with pytest.raises(SelectionError, match=r'"patch3.jpg": "tiles/patch3.jpg", "tiles/sub/patch3.jpg"'):
        index(tmp_path / "tiles_gnu.tar", **{flag: GOLDENS / "keep.txt"})
    table = write_csv(tmp_path / "l.csv", ["patch3.jpg,1", "patch0.jpg,0"])
    keep = _list(tmp_path, "tiles/patch3.jpg", "patch0.jpg")
    with pytest.raises(LabelError, match=r'"patch3.jpg": "tiles/patch3.jpg", "tiles/sub/patch3.jpg"'):
        index(tmp_path / "tiles_gnu.tar", csv=table, keep=keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep.txt", "l.csv", "tiles_gnu.tar"]


def _list(folder: Path, *names: str) -> Path:
    path = folder / "keep.txt"
    path.write_text("\n".join(names) + "\n")
    return path


# --- which members become tiles ----------------------------------------------------------------------------------


def test_hard_links_non_images_and_empty_files(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    images = [b"a.JPG", b"b.jpeg", b"c.Png", b"d.tif", b"e.TIFF", b"f.bmp", b"g.webp"]
    others = [b"._a.jpg", b"x/._h.png", b"notes.txt", b"jpg", b"i.jpg.txt", b"Thumbs.db"]
    parts = [member(name, name) for name in images + others]
    parts.insert(1, header(b"empty.jpg", 0))
    parts.insert(3, header(b"again/z.jpg", 0, b"1", target=b"a.JPG"))
    parts.insert(4, header(b"again/z.txt", 0, b"1", target=b"a.JPG"))
    parts.append(header(b"late.png", 0, b"1", target=b"notes.txt") + header(b"none.png", 0, b"1", target=b"empty.jpg"))
    path.write_bytes(b"".join(parts) + END)
    report = index(path)
    entries, names = load_entries(tmp_path / "entries.npy"), load_names(tmp_path / "file_indices.npy")
    data = path.read_bytes()
    content = {names[int(i)]: data[start:end] for _, i, start, end in entries.tolist()}
    expected = {name.decode(): name for name in images} | {"z.jpg": b"a.JPG", "late.png": b"notes.txt"}
    assert content == expected
    regular = [b"a.JPG", b"empty.jpg", *images[1:], *others]
    links = ["z.jpg", "z.txt", "late.png", "none.png"]
    assert list(names.values()) == [name.decode().rpartition("/")[2] for name in regular] + links
    assert (report.tiles, report.members) == (9, len(regular) + 4)
    assert report.left_out["not images"] == len(others) + 1 and report.left_out["empty images"] == 2


def test_links_that_gnu_tar_makes_of_repeated_symbolic_links(tmp_path: Path) -> None:
    store, farm = tmp_path / "store", tmp_path / "farm"
    store.mkdir()
    farm.mkdir()
    for i in range(4):
        (store / f"s{i}.jpg").write_bytes(noise(i, 900))
        for copy in range(3):
            (farm / f"tile_{copy}_{i}.jpg").symlink_to(store / f"s{i}.jpg")
    path = tmp_path / "t.tar"
    subprocess.run(["tar", "-chf", path, "-C", farm, "."], check=True)
    assert index(path).tiles == 12
    data, names = path.read_bytes(), load_names(tmp_path / "file_indices.npy")
    for _, i, start, end in load_entries(tmp_path / "entries.npy").tolist():
        assert data[start:end] == (farm / names[i]).read_bytes()


# --- lists -------------------------------------------------------------------------------------------------------


def tiles_of(folder: Path, entries: str = "entries.npy") -> list[str]:
    names = load_names(folder / "file_indices.npy")
    return [names[int(i)] for i in load_entries(folder / entries)[:, 1]]


def test_lists_take_base_names_and_paths_in_any_spelling(tar: Path) -> None:
    keep = tar.parent / "keep.txt"
    keep.write_bytes(b"\xef\xbb\xbft1.jpg\r\n\r\n  a/t2.jpg  \n./b/t3.jpg\nt1.jpg\nb/same.jpg\nnowhere.jpg\nb/t2.jpg\n")
    report = index(tar, keep=keep)
    assert tiles_of(tar.parent) == ["t1.jpg", "t2.jpg", "t3.jpg", "same.jpg"]
    assert load_entries(tar.parent / "entries.npy")[:, 1].tolist() == [1, 2, 3, 11]
    assert report.warnings == [f'2 names of "{keep}" match no tile: "nowhere.jpg", "b/t2.jpg"']
    index(tar, remove=keep, suffix="rest")
    assert tiles_of(tar.parent, "entries_rest.npy") == [f"t{i}.jpg" for i in (0, 4, 5, 6, 7, 8, 9)] + ["same.jpg"]


def test_an_empty_keep_list_keeps_nothing_and_an_empty_remove_list_removes_nothing(tar: Path) -> None:
    empty = tar.parent / "empty.txt"
    empty.write_bytes(b"")
    assert index(tar, keep=empty).tiles == 0
    assert np.load(tar.parent / "entries.npy").shape == (0, 4)
    assert index(tar, remove=empty).tiles == 12


def test_a_shared_name_matters_only_where_something_depends_on_it(tar: Path) -> None:
    assert index(tar).tiles == 12
    assert index(tar, remove=_list(tar.parent, "a/same.jpg", "b/same.jpg")).tiles == 10
    with pytest.raises(SelectionError, match='"same.jpg": "a/same.jpg", "b/same.jpg"'):
        index(tar, remove=_list(tar.parent, "same.jpg"))
    table = write_csv(tar.parent / "l.csv", [f"t{i}.jpg,0" for i in range(10)] + ["same.jpg,1"])
    assert index(tar, csv=table, keep=_list(tar.parent, "t3.jpg")).tiles == 1
    with pytest.raises(LabelError, match='"same.jpg": "a/same.jpg", "b/same.jpg"'):
        index(tar, csv=table, keep=_list(tar.parent, "a/same.jpg"))


def test_a_path_that_is_in_the_archive_twice_is_ambiguous(tmp_path: Path) -> None:
    path = tmp_path / "t.tar"
    path.write_bytes(member(b"a/x.jpg", b"1") + member(b"a/x.jpg", b"22") + END)
    assert index(path).tiles == 2
    with pytest.raises(SelectionError, match="stand for several members"):
        index(path, keep=_list(tmp_path, "a/x.jpg"))


def test_missing_lists_and_names_that_leave_the_folder(tar: Path) -> None:
    with pytest.raises(SelectionError, match="cannot be read"):
        index(tar, keep=tar.parent / "none.txt")
    with pytest.raises(LabelError, match="cannot be read"):
        index(tar, csv=tar.parent / "none.csv")
    with pytest.raises(SelectionError, match="exclude each other"):
        index(tar, keep=_list(tar.parent), remove=_list(tar.parent))
    for part in ("../x", "a/b", "", ".x", "a\nb", "a\x1b[0m"):
        with pytest.raises(SelectionError, match="cannot be part of a file name"):
            index(tar, name=part)
        with pytest.raises(SelectionError, match="cannot be part of a file name"):
            index(tar, suffix=part)
    with pytest.raises(SelectionError, match="not a folder"):
        infer_entries(IndexRequest(tar, tar.parent / "none"))


# --- labels ------------------------------------------------------------------------------------------------------


def labelled(tar: Path, labels: list[str], **fields: object) -> tuple[list[int], list[tuple[int | str, str]]]:
    """Class indices of t0 to t9 with these labels, and the class table."""
    write_csv(tar.parent / "l.csv", [f"t{i}.jpg,{label}" for i, label in enumerate(labels)])
    keep = _list(tar.parent, *(f"t{i}.jpg" for i in range(len(labels))))
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
    index(tar, csv=tar.parent / "l.csv", keep=_list(tar.parent, "t1.jpg", "a/same.jpg", "b/same.jpg"), columns=columns)
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
        index(tar, csv=write_csv(tar.parent / "l.csv", rows), keep=_list(tar.parent, "t0.jpg"))
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
    assert index(tar, csv=table, keep=_list(tar.parent, "t0.jpg", "t1.jpg")).tiles == 2


def test_splits_share_one_class_table(tar: Path) -> None:
    _, table = labelled(tar, ["a", "b", "c", "b"], name=None, suffix=None)
    write_csv(tar.parent / "test.csv", ["t4.jpg,c", "t5.jpg,a"])
    index(tar, name="test", csv=tar.parent / "test.csv", keep=_list(tar.parent, "t4.jpg", "t5.jpg"))
    assert load_entries(tar.parent / "test_entries.npy")[:, 0].tolist() == [2, 0]
    assert load_class_ids(tar.parent / "class-ids.npy") == table
    write_csv(tar.parent / "test.csv", ["t4.jpg,d", "t5.jpg,a"])
    with pytest.raises(LabelError, match=r'"d: class_d".*"entries.npy"'):
        index(tar, name="test", csv=tar.parent / "test.csv", keep=_list(tar.parent, "t4.jpg", "t5.jpg"))
    (tar.parent / "entries.npy").unlink()
    index(tar, name="test", csv=tar.parent / "test.csv", keep=_list(tar.parent, "t4.jpg", "t5.jpg"))
    assert load_class_ids(tar.parent / "class-ids.npy") == [("a", "class_a"), ("d", "class_d")]


# --- files: stale, foreign, damaged, killed ----------------------------------------------------------------------


def test_stale_side_files_are_rewritten(tar: Path) -> None:
    table = write_csv(tar.parent / "l.csv", [f"t{i}.jpg,{i}" for i in range(10)])
    index(tar, name="pretrain", csv=table, keep=_list(tar.parent, *(f"t{i}.jpg" for i in range(10))))
    tar.write_bytes(member(b"new.jpg") + END)
    index(tar, name="pretrain", csv=write_csv(tar.parent / "l.csv", ["new.jpg,x"]))
    assert load_names(tar.parent / "pretrain_file_indices.npy") == {0: "new.jpg"}
    assert load_class_ids(tar.parent / "class-ids.npy") == [("x", "class_x")]
    assert check_fingerprint(tar.parent, "pretrain", tar)


def test_fingerprints_follow_copies_and_notice_every_change(tar: Path) -> None:
    extra = tar.parent
    index(tar, name="pretrain")
    index(tar, name="pretrain", suffix="few", keep=_list(extra, "t1.jpg"))
    other = extra / "pretrain_dataset.tar"
    other.write_bytes(tar.read_bytes())
    assert check_fingerprint(extra, "pretrain", other) and check_fingerprint(extra, "pretrain", other, suffix="few")
    other.write_bytes(member(b"more.jpg") + tar.read_bytes())
    with pytest.raises(StaleIndexError, match="another state"):
        check_fingerprint(extra, "pretrain", other)
    index(other, name="pretrain")
    assert check_fingerprint(extra, "pretrain", other)
    with pytest.raises(StaleIndexError, match="another state"):
        check_fingerprint(extra, "pretrain", other, suffix="few")


def test_exchanged_entries_and_class_tables_are_noticed(tar: Path) -> None:
    extra = tar.parent
    index(
        tar, name="a", csv=write_csv(extra / "l.csv", ["t1.jpg,0", "t2.jpg,1"]), keep=_list(extra, "t1.jpg", "t2.jpg")
    )
    assert check_fingerprint(extra, "a", tar)
    good = (extra / "class-ids.npy").read_bytes()
    (extra / "class-ids.npy").write_bytes(good.replace(b"class_1", b"class_2"))
    with pytest.raises(StaleIndexError, match="class-ids"):
        check_fingerprint(extra, "a", tar)
    (extra / "class-ids.npy").write_bytes(good)
    np.save(extra / "a_entries.npy", load_entries(extra / "a_entries.npy")[:1])
    with pytest.raises(StaleIndexError, match="not the file"):
        check_fingerprint(extra, "a", tar)
    (extra / "a_entries.npy").unlink()
    with pytest.raises(SideFileError, match="cannot be opened"):
        check_fingerprint(extra, "a", tar)


def test_an_index_without_fingerprint_is_held_against_the_size(tar: Path) -> None:
    extra = tar.parent
    index(tar, name="a")
    (extra / "a_index.json").unlink()
    assert check_fingerprint(extra, "a", tar) is False
    tar.write_bytes(tar.read_bytes()[: 6 * BLOCK])
    with pytest.raises(StaleIndexError, match="row 3"):
        check_fingerprint(extra, "a", tar)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"format": 2}', '{"format": 1, "files": {"a_entries.npy": [1]}}', "[" * 100_000]
)
def test_damaged_records_are_refused_and_replaced(tar: Path, text: str) -> None:
    (tar.parent / "a_index.json").write_text(text)
    np.save(tar.parent / "a_entries.npy", np.zeros((1, 4), np.uint64))
    with pytest.raises(SideFileError, match="damaged"):
        check_fingerprint(tar.parent, "a", tar)
    index(tar, name="a")
    assert check_fingerprint(tar.parent, "a", tar)


@pytest.mark.parametrize(
    ("row", "start", "end"),
    [
        (3, 10_000_000, 10_000_001),
        (3, 512, 10_000_000),
        (3, 512, 0),
        (3, 1024, 1024),
        (3, 513, 600),
        (3, 0, 10),
        (99_999, 512, 2**63),
    ],
)
def test_impossible_rows_are_refused_with_their_number(row: int, start: int, end: int) -> None:
    entries = np.zeros((100_000, 4), np.uint64)
    entries[:, 2] = 512 * (np.arange(100_000) % 1000 + 1)
    entries[:, 3] = entries[:, 2] + np.uint64(10)
    check_entries(entries, tar_size=1_000_000)
    entries[row, 2:] = start, end
    with pytest.raises(StaleIndexError, match=f"row {row:,}"):
        check_entries(entries, tar_size=1_000_000)


def npy(text: str, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode() + data


BAD_ENTRIES: dict[str, Callable[[], bytes]] = {
    "claims 128 GiB": lambda: npy("{'descr': '<u8', 'fortran_order': False, 'shape': (4294967296, 4), }\n"),
    "claims 2**300 rows": lambda: npy(
        f"{{'descr': '<u8', 'fortran_order': False, 'shape': ({9 * 10**18}, {9 * 10**18}), }}\n"
    ),
    "truncated": lambda: saved(np.zeros((3, 4), np.uint64))[:-1],
    "trailing bytes": lambda: saved(np.zeros((3, 4), np.uint64)) + b"x",
    "float": lambda: saved(np.zeros((3, 4))),
    "int64": lambda: saved(np.zeros((3, 4), np.int64)),
    "big-endian": lambda: saved(np.zeros((3, 4), ">u8")),
    "three columns": lambda: saved(np.zeros((3, 3), np.uint64)),
    "three dimensions": lambda: saved(np.zeros((3, 4, 1), np.uint64)),
    "one dimension": lambda: saved(np.zeros(4, np.uint64)),
    "column order": lambda: saved(np.asfortranarray(np.zeros((3, 4), np.uint64))),
    "objects": lambda: saved(np.array([[1, 2, 3, "x"]], object)),
    "code in the header": lambda: npy(
        "{'descr': __import__('os').system('true'), 'fortran_order': False, 'shape': (1, 4), }\n"
    ),
    "deep header": lambda: npy("(" * 9_000),
    "no npy": lambda: b"hello",
    "nothing": lambda: b"",
}


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("case", sorted(BAD_ENTRIES))
def test_damaged_entries_are_refused_without_allocation(tmp_path: Path, case: str) -> None:
    path = tmp_path / "entries.npy"
    path.write_bytes(BAD_ENTRIES[case]())
    with pytest.raises(SideFileError, match="cannot be used"):
        load_entries(path)


def test_entries_are_mapped_and_read_only(tmp_path: Path) -> None:
    path = tmp_path / "entries.npy"
    for shape in ((5, 4), (5, 5), (0, 4), (0, 5)):
        np.save(path, np.zeros(shape, np.uint64))
        assert load_entries(path).shape == shape
    np.save(path, np.zeros((5, 4), np.uint64))
    entries = load_entries(path)
    assert isinstance(entries, np.memmap) and not entries.flags.writeable
    np.save(path, np.zeros(0, np.uint64))
    assert load_entries(path).shape == (0, 4)


KILLED = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from dinov2.data.tar_index import IndexRequest, infer_entries
left = [{step}]
def dying(real):
    def replace(*args):
        if left[0] == 0:
            os._exit(9)
        left[0] -= 1
        return real(*args)
    return replace
Path.replace, os.replace = dying(Path.replace), dying(os.replace)
infer_entries(IndexRequest(Path({tar!r}), Path({folder!r}), "pretrain", csv=Path({csv!r})))
"""


def test_a_kill_at_any_rename_leaves_an_index_that_fits_or_is_refused(tmp_path: Path) -> None:
    tar, table = tmp_path / "t.tar", tmp_path / "l.csv"
    content = {}
    for step in range(12):
        write_csv(table, ["a.jpg,0", "b.jpg,1"])
        tar.write_bytes(member(b"a.jpg", b"a" * 40) + member(b"b.jpg", b"b" * 50) + END)
        infer_entries(IndexRequest(tar, tmp_path, "pretrain", csv=table))
        write_csv(table, ["a.jpg,x", "b.jpg,y", "c.jpg,x"])
        tar.write_bytes(member(b"b.jpg", b"b" * 1000) + member(b"c.jpg", b"c") + member(b"a.jpg", b"a" * 9) + END)
        script = KILLED.format(root=str(ROOT), step=step, tar=str(tar), folder=str(tmp_path), csv=str(table))
        code = subprocess.run([sys.executable, "-c", script], check=False).returncode
        try:
            assert check_fingerprint(tmp_path, "pretrain", tar)
            labels = [label for label, _ in load_class_ids(tmp_path / "class-ids.npy")]
            names, data = load_names(tmp_path / "pretrain_file_indices.npy"), tar.read_bytes()
            for label, i, start, end in load_entries(tmp_path / "pretrain_entries.npy").tolist():
                assert set(data[start:end]) == {ord(names[i][0])}
                assert labels[label] == {"a": "x", "b": "y", "c": "x"}[names[i][0]]
            content[step] = "new"
        except StaleIndexError:
            content[step] = "refused"
        if code == 0:
            break
        infer_entries(IndexRequest(tar, tmp_path, "pretrain", csv=table))  # and it can always be mended
        assert check_fingerprint(tmp_path, "pretrain", tar)
    assert code == 0 and step >= 4
    assert content[0] == "refused" and content[step] == content[step - 1] == "new"


def test_a_failed_run_changes_nothing(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index(tar, name="a")
    before = {path.name: path.read_bytes() for path in tar.parent.iterdir()}
    tar.write_bytes(tar.read_bytes()[:-BLOCK])
    with pytest.raises(ArchiveError):
        index(tar, name="a")
    assert before | {tar.name: tar.read_bytes()} == {path.name: path.read_bytes() for path in tar.parent.iterdir()}


def test_an_archive_that_changes_while_it_is_read_is_refused(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = infer_module.IndexBuilder.build

    def build_and_append(self: infer_module.IndexBuilder, members: object) -> None:
        commit(self, members)  # type: ignore[arg-type]
        with tar.open("ab") as file:
            file.write(bytes(BLOCK))

    monkeypatch.setattr(infer_module.IndexBuilder, "build", build_and_append)
    with pytest.raises(ArchiveError, match="changed while"):
        index(tar)


def test_leftovers_of_killed_runs_are_swept_after_a_day(tar: Path) -> None:
    old, young = tar.parent / ".entries.npy.00.tmp", tar.parent / ".entries.npy.01.tmp"
    for path in (old, young):
        path.write_bytes(b"")
    os.utime(old, (0, 0))
    index(tar)
    assert not old.exists() and young.exists()


# --- the command -------------------------------------------------------------------------------------------------


def test_the_command_from_any_folder(tar: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "l.csv", [f"t{i}.jpg,{'xy'[i % 2]},k{i % 2}" for i in range(10)], "tile,grade,kind")
    keep = _list(tmp_path, *(f"t{i}.jpg" for i in range(10)))
    flags = ["--tarball_path", tar.name, "--output_root", ".", "--prefix", "query", "--suffix", "s", "--keep", keep]
    flags += ["--csv", table, "--file_name", "tile", "--label_name", "grade", "--class_name", "kind"]
    done = run("infer_entries.py", *flags, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 tiles in 2 classes of 12 members" in done.stdout and "MB/s" in done.stdout
    assert done.stderr == ""  # no bar where there is no terminal
    assert load_entries(tmp_path / "query_entries_s.npy")[:, 0].tolist() == [0, 1] * 5
    assert load_class_ids(tmp_path / "class-ids.npy") == [("x", "k0"), ("y", "k1")]
    assert (tmp_path / "query_file_indices.npy").exists()


def test_exit_codes_of_the_command(tar: Path, tmp_path: Path) -> None:
    nothing, empty = _list(tmp_path, "none.jpg"), ["--tarball_path", tar, "--output_root", tmp_path]
    done = run("infer_entries.py", *empty, "--keep", nothing)
    assert done.returncode == 1 and "no tile was selected" in done.stderr
    assert "warning: 1 names of" in done.stderr and '"none.jpg"' in done.stderr
    assert np.load(tmp_path / "entries.npy").shape == (0, 4)
    assert run("infer_entries.py", *empty, "--keep", nothing, "--allow-empty").returncode == 0
    done = run("infer_entries.py", *empty, "--keep", nothing, "--remove", nothing)
    assert done.returncode == 2 and done.stderr.startswith("error: --keep and --remove")
    done = run("infer_entries.py", "--tarball_path", tmp_path / "no.tar", "--output_root", tmp_path)
    assert done.returncode == 2 and "Traceback" not in done.stderr


def test_memory_does_not_grow_with_the_archive(tmp_path: Path) -> None:
    script = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from dinov2.data.tar_index import IndexRequest, infer_entries\n"
        "folder = Path(sys.argv[1])\n"
        "infer_entries(IndexRequest(folder / 't.tar', folder, csv=folder / 'l.csv' if len(sys.argv) > 2 else None))\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])\n"
    )
    one = member(b"tiles/slide_000/tile_0000000.jpg", b"x")
    peaks = {}
    for count in (1000, 60_000):
        with (tmp_path / "t.tar").open("wb") as file:
            file.writelines([one] * count + [END])
        done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
        peaks[count] = int(done.stdout) * 1024
    assert peaks[60_000] < 100e6
    assert peaks[60_000] - peaks[1000] < 20e6  # tarfile needs 500 bytes a member: 30 MB


def test_names_of_every_kind_come_back(tmp_path: Path) -> None:
    names = [b"a.jpg", "é δ.jpg".encode(), b"\xff\xc3", b"\xa9x.jpg", b"new\nline.jpg", b"n" * 5000 + b".jpg"]
    with tarfile.open(tmp_path / "t.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        for name in names:
            info = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            info.size = 1
            tar.addfile(info, io.BytesIO(b"x"))
    index(tmp_path / "t.tar")
    expected = {i: name.decode("utf-8", "surrogateescape") for i, name in enumerate(names)}
    assert load_names(tmp_path / "file_indices.npy") == expected
    assert np.load(tmp_path / "file_indices.npy", allow_pickle=True).item() == expected


def test_large_tables_are_joined_in_any_order(tmp_path: Path) -> None:
    count, rng = 30_000, np.random.default_rng(1)
    order = rng.permutation(count)
    (tmp_path / "t.tar").write_bytes(b"".join(header(b"p/%d.jpg" % i, 1) + bytes(BLOCK) for i in range(count)) + END)
    with (tmp_path / "l.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["filename", "label"])
        writer.writerows([f"p/{i}.jpg" if i % 2 else f"{i}.jpg", i % 7] for i in order)
    index(tmp_path / "t.tar", csv=tmp_path / "l.csv")
    assert (load_entries(tmp_path / "entries.npy")[:, 0] == np.arange(count) % 7).all()
