"""Index files that are stale, foreign, damaged or half written are rewritten or refused, never used."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from indexing import ROOT, index, write_csv, write_list
from tar_making import BLOCK, END, member

from dinov2.data.tar_index import (
    ArchiveError,
    LabelError,
    SideFileError,
    StaleIndexError,
    check_entries,
    check_fingerprint,
    load_class_ids,
    load_entries,
    load_names,
)
from dinov2.data.tar_index import infer as infer_module


def test_stale_side_files_are_rewritten(tar: Path) -> None:
    table = write_csv(tar.parent / "l.csv", [f"t{i}.jpg,{i}" for i in range(10)])
    index(tar, name="pretrain", csv=table, keep=write_list(tar.parent, *(f"t{i}.jpg" for i in range(10))))
    tar.write_bytes(member(b"new.jpg") + END)
    index(tar, name="pretrain", csv=write_csv(tar.parent / "l.csv", ["new.jpg,x"]))
    assert load_names(tar.parent / "pretrain_file_indices.npy") == {0: "new.jpg"}
    assert load_class_ids(tar.parent / "class-ids.npy") == [("x", "class_x")]
    assert check_fingerprint(tar.parent, "pretrain", tar)


def test_fingerprints_follow_copies_and_notice_every_change(tar: Path) -> None:
    extra = tar.parent
    index(tar, name="pretrain")
    index(tar, name="pretrain", suffix="few", keep=write_list(extra, "t1.jpg"))
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
    table, keep = write_csv(extra / "l.csv", ["t1.jpg,0", "t2.jpg,1"]), write_list(extra, "t1.jpg", "t2.jpg")
    index(tar, name="a", csv=table, keep=keep)
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
    check_entries(entries, tar_sizes={0: 1_000_000})
    entries[row, 2:] = start, end
    with pytest.raises(StaleIndexError, match=f"row {row:,}"):
        check_entries(entries, tar_sizes={0: 1_000_000})


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
infer_entries(IndexRequest(Path({tar!r}), Path({folder!r}), "pretrain", {flag}=Path({path!r})))
"""


def killed(tar: Path, step: int, *, flag: str, path: Path) -> int:
    """Index in a process that dies at the given rename; its exit code, 0 if it needed fewer."""
    script = KILLED.format(root=str(ROOT), step=step, tar=str(tar), folder=str(tar.parent), flag=flag, path=str(path))
    return subprocess.run([sys.executable, "-c", script], check=False).returncode


def test_a_kill_at_any_rename_leaves_an_index_that_fits_or_is_refused(tmp_path: Path) -> None:
    """Archive, labels and class names all changed: nothing old may be taken for new."""
    tar, table, states = tmp_path / "t.tar", tmp_path / "l.csv", []
    for step in range(12):
        write_csv(table, ["a.jpg,0", "b.jpg,1"])
        tar.write_bytes(member(b"a.jpg", b"a" * 40) + member(b"b.jpg", b"b" * 50) + END)
        index(tar, name="pretrain", csv=table)
        write_csv(table, ["a.jpg,x", "b.jpg,y", "c.jpg,x"])
        tar.write_bytes(member(b"b.jpg", b"b" * 1000) + member(b"c.jpg", b"c") + member(b"a.jpg", b"a" * 9) + END)
        code = killed(tar, step, flag="csv", path=table)
        try:
            assert check_fingerprint(tmp_path, "pretrain", tar)
            assert_new_labels(tmp_path, tar)
            states.append("new")
        except StaleIndexError:
            states.append("refused")
        if code == 0:
            break
        index(tar, name="pretrain", csv=table)  # and it can always be mended
        assert check_fingerprint(tmp_path, "pretrain", tar)
    assert code == 0 and step >= 4
    assert states[0] == "refused" and states[-2:] == ["new", "new"]


def assert_new_labels(folder: Path, tar: Path) -> None:
    """Every row has the bytes, the name and the class of one tile of the second archive."""
    labels = [label for label, _ in load_class_ids(folder / "class-ids.npy")]
    names, data = load_names(folder / "pretrain_file_indices.npy"), tar.read_bytes()
    for label, i, start, end in load_entries(folder / "pretrain_entries.npy").tolist():
        assert set(data[start:end]) == {ord(names[i][0])}
        assert labels[label] == {"a": "x", "b": "y", "c": "x"}[names[i][0]]


def test_a_kill_while_only_the_list_changes_leaves_the_old_index_or_the_new_one(tar: Path) -> None:
    rows = []
    for step in range(12):
        index(tar, name="pretrain", keep=write_list(tar.parent, "t1.jpg"))
        code = killed(tar, step, flag="keep", path=write_list(tar.parent, "t1.jpg", "t2.jpg"))
        assert check_fingerprint(tar.parent, "pretrain", tar)
        rows.append(len(load_entries(tar.parent / "pretrain_entries.npy")))
        if code == 0:
            break
    assert code == 0 and rows == sorted(rows) and rows[0] == 1 and rows[-1] == 2


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


def test_leftovers_of_killed_runs_are_swept(tar: Path) -> None:
    host, running = os.uname().nodename.partition(".")[0], os.getppid()
    dead, young = (tar.parent / f".entries.npy.{host}.{process}.0123abcd.tmp" for process in (os.getpid(), running))
    for path in (dead, young):
        path.write_bytes(b"")
    index(tar)
    assert not dead.exists() and young.exists()


def test_commands_at_once_keep_each_others_records(tar: Path) -> None:
    """Subsets, two runs of the same one, and other names with the same class table."""
    csv = write_csv(tar.parent / "l.csv", [f"{'ab'[i % 2]}/t{i}.jpg,{i % 3}" for i in range(10)])
    keep = write_list(tar.parent, *(f"t{i}.jpg" for i in range(10)))
    runs = [{"name": "pretrain", "suffix": s} for s in "abcdefaa"] + [
        {"name": name, "suffix": s, "csv": csv, "keep": keep} for name in ("query", "test") for s in "ab"
    ]
    with ThreadPoolExecutor(len(runs)) as pool:
        list(pool.map(lambda run: index(tar, **run), runs))
    for run in runs:
        assert check_fingerprint(tar.parent, str(run["name"]), tar, suffix=str(run["suffix"]))
    assert len(load_class_ids(tar.parent / "class-ids.npy")) == 3
    assert not [path for path in tar.parent.iterdir() if path.name.startswith(".")]


def test_a_class_table_that_changed_meanwhile_is_noticed(tar: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, other = (write_csv(tar.parent / f"{n}.csv", ["t1.jpg,x", f"t2.jpg,{n}"]) for n in "yw")
    keep, build = write_list(tar.parent, "t1.jpg", "t2.jpg"), infer_module._build

    def slow_build(*args: object) -> object:
        built = build(*args)  # type: ignore[arg-type]
        monkeypatch.setattr(infer_module, "_build", build)
        index(tar, name="test", csv=other, keep=keep)
        return built

    monkeypatch.setattr(infer_module, "_build", slow_build)
    with pytest.raises(LabelError, match="class-ids.npy"):
        index(tar, name="query", csv=first, keep=keep)
    assert check_fingerprint(tar.parent, "test", tar)
