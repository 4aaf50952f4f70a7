"""Paths that occur more than once in an archive: the index has what unpacking gives."""

import io
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
from indexing import index, write_csv, write_list
from tar_making import END, member

from dinov2.data.tar_index import (
    GroupRequest,
    IndexReport,
    LabelColumns,
    VerifyRequest,
    group_entries,
    load_entries,
    load_groups,
    load_names,
    replaced,
    verify_dataset,
)
from dinov2.data.tar_index import names as names_module

KINDS = {"d": tarfile.DIRTYPE, "s": tarfile.SYMTYPE, "h": tarfile.LNKTYPE, "p": tarfile.FIFOTYPE}
LATER = {
    "file": ["a.jpg=old", "b.jpg=b", "a.jpg=new"],
    "three times": ["a.jpg=1", "a.jpg=22", "a.jpg=333"],
    "other spellings": ["d/a.jpg=old", "d//a.jpg=mid", "./d/./a.jpg=new"],
    "with a slash in front": ["d/a.jpg=old", "/d/a.jpg=new"],
    "empty file": ["a.jpg=old", "a.jpg=", "b.jpg=b"],
    "folder": ["a.jpg=old", "a.jpg d", "b.jpg=b"],
    "folder before": ["a.jpg d", "a.jpg=new"],
    "symbolic link": ["y.jpg=y", "a.jpg=old", "a.jpg s y.jpg"],
    "hard link": ["y.jpg=y", "a.jpg=old", "a.jpg h y.jpg"],
    "hard link to itself": ["a.jpg=old", "a.jpg h a.jpg"],
    "pipe": ["a.jpg=old", "a.jpg p", "b.jpg=b"],
    "links to both": ["a.jpg=old", "z.jpg h a.jpg", "a.jpg=new", "q.jpg h ./a.jpg"],
    "hard link, then a file": ["y.jpg=y", "a.jpg h y.jpg", "a.jpg=new"],
    "folders only": ["d d", "d/a.jpg=a", "d d", "d/b.jpg=b"],
}


def make(path: Path, items: list[str], form: int = tarfile.GNU_FORMAT) -> Path:
    """A tar of `name=content`, `name d`, `name s target`, `name h target`, `name p`."""
    with tarfile.open(path, "w", format=form) as tar:
        for item in items:
            name, is_file, content = item.partition("=")
            info = tarfile.TarInfo(name.split(" ")[0])
            if not is_file:
                _, kind, *target = name.split(" ")
                info.type, info.mode, info.linkname = KINDS[kind], 0o755, "".join(target)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content.encode()))
    return path


def indexed(tar: Path) -> dict[str, bytes]:
    """Base names and bytes of the rows."""
    names, data = load_names(tar.parent / "file_indices.npy"), tar.read_bytes()
    rows = load_entries(tar.parent / "entries.npy").tolist()
    found = {names[i]: data[start:end] for _, i, start, end in rows}
    assert len(found) == len(rows)
    return found


def unpacked(tar: Path) -> dict[str, bytes]:
    """Base names and bytes of the files with content that GNU tar makes of the archive."""
    folder = tar.parent / "unpacked"
    folder.mkdir()
    subprocess.run(["tar", "-xf", tar, "-C", folder], check=True, stderr=subprocess.DEVNULL)
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return {path.name: path.read_bytes() for path in files if path.stat().st_size}


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, tarfile.USTAR_FORMAT])
@pytest.mark.parametrize("case", LATER)
def test_the_index_has_what_unpacking_gives(tmp_path: Path, case: str, form: int) -> None:
    tar = make(tmp_path / "t.tar", LATER[case], form)
    report = index(tar)
    assert indexed(tar) == unpacked(tar)
    images = sum(("=" in item and not item.endswith("=")) or " h " in item for item in LATER[case])
    assert report.left_out["replaced"] == images - report.tiles
    assert bool(report.warnings) == bool(report.left_out["replaced"])


def test_archives_that_tar_adds_to(tmp_path: Path) -> None:
    tar, folder = tmp_path / "t.tar", tmp_path / "tiles"
    folder.mkdir()

    def write(**files: str) -> None:
        for name, text in files.items():
            (folder / f"{name}.jpg").write_text(text)

    def pack(flag: str, *what: object) -> IndexReport:
        subprocess.run(["tar", "-C", tmp_path, flag, tar, *what], check=True)
        return index(tar)

    write(a="a1", b="b1", c="c1")
    assert pack("-cf", "tiles").warnings == []
    write(a="a2")
    assert pack("-rf", "tiles/a.jpg").left_out["replaced"] == 1
    subprocess.run(["tar", "-C", tmp_path, "-cf", tmp_path / "more.tar", "./tiles"], check=True)
    report = pack("-Af", tmp_path / "more.tar")
    assert (report.tiles, report.left_out["replaced"], report.members) == (3, 4, 7)
    assert "4 tiles come again" in report.warnings[0] and '"tiles/a.jpg"' in report.warnings[0]
    assert indexed(tar) == {"a.jpg": b"a2", "b.jpg": b"b1", "c.jpg": b"c1"}


def test_lists_labels_and_groups_mean_the_last_copy(tmp_path: Path) -> None:
    tar = make(tmp_path / "t.tar", ["s1/x.jpg=old", "s1/y.jpg=y", "s1/x.jpg=newer", "s2/z.jpg=z"])
    assert index(tar, keep=write_list(tmp_path, "x.jpg")).tiles == 1 and indexed(tar) == {"x.jpg": b"newer"}
    assert index(tar, remove=write_list(tmp_path, "s1/x.jpg")).tiles == 2
    table = write_csv(tmp_path / "l.csv", ["x.jpg,1", "y.jpg,0", "z.jpg,1"])
    assert index(tar, csv=table).tiles == 3
    assert load_entries(tmp_path / "entries.npy")[:, :2].tolist() == [[0, 1], [1, 2], [1, 3]]
    columns = LabelColumns(label="label", class_name=None, what="group", as_text=True)
    group_entries(GroupRequest(tar, tmp_path, csv=table, columns=columns))
    groups = load_groups(tmp_path, None)
    assert groups is not None and list(groups.names) == ["0", "1"] and groups.sizes.tolist() == [1, 2]


def test_verification_knows_what_an_index_leaves_out(tmp_path: Path) -> None:
    tar = make(tmp_path / "t.tar", ["a.jpg=old", ".b.jpg=b", "c.jpg=c", "a.jpg=new", "d.jpg h a.jpg", "c.jpg d"])
    assert index(tar).tiles == 2
    assert verify_dataset(VerifyRequest(tar, tmp_path, decode=False)).good


def test_hashes_are_sorted_in_pieces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(replaced, "SORTED_AT_ONCE", 8)
    monkeypatch.setattr(replaced, "READ_BYTES", 64)
    numbers = np.random.default_rng(0).integers(0, 150, 300).tolist()
    tar = tmp_path / "t.tar"
    tar.write_bytes(b"".join(member(b"d/%d.jpg" % n, b"%d" % i) for i, n in enumerate(numbers)) + END)
    report = index(tar)
    last = {f"{n}.jpg": str(i).encode() for i, n in enumerate(numbers)}
    assert indexed(tar) == last and report.left_out["replaced"] == 300 - len(last)


def test_paths_with_one_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (replaced, names_module):
        monkeypatch.setattr(module, "hash", lambda name: 7, raising=False)
    report = index(make(tmp_path / "t.tar", ["a.jpg=1", "b.jpg=2", "a.jpg=3", "c.jpg=4"]))
    assert report.left_out["replaced"] == 1 and len(indexed(tmp_path / "t.tar")) == 3


# --- hidden files ----------------------------------------------------------------------------------------------------

HIDDEN = [
    ".ipynb_checkpoints/t-checkpoint.jpg",
    "s1/@eaDir/t.jpg/SYNOPHOTO_THUMB_M.jpg",
    "__MACOSX/s1/t.jpg",
    "#recycle/t.jpg",
    "$RECYCLE.BIN/S-1-5/t.jpg",
    "lost+found/t.jpg",
    "s1/.AppleDouble/t.jpg",
    "s1/.@__thumb/t.jpg",
    "s1/.t.jpg",
    "s1/..t.jpg",
]
SHOWN = ["s1/t@20x.jpg", "s#1/t.jpg", "s.1/t.jpg", "s1/a.b.jpg", "__MACOSX.jpg", "eaDir/t.jpg"]


@pytest.mark.parametrize("prefix", ["", "./", "tiles/"])
def test_hidden_images_are_left_out_as_in_a_folder(tmp_path: Path, prefix: str) -> None:
    tar = make(tmp_path / "t.tar", [f"{prefix}{name}={number}" for number, name in enumerate(HIDDEN + SHOWN)])
    report = index(tar)
    assert (report.tiles, report.left_out["hidden"]) == (len(SHOWN), len(HIDDEN))
    assert report.members == len(HIDDEN + SHOWN)  # the numbers of files stay
    assert f"{len(HIDDEN)} images are hidden" in report.warnings[0] and ".ipynb_checkpoints" in report.warnings[0]
    assert f"{len(HIDDEN)} hidden" in report.line()


# --- letters with marks ----------------------------------------------------------------------------------------------

COMPOSED, DECOMPOSED = "caf\u00e9.jpg", "cafe\u0301.jpg"


@pytest.mark.parametrize(("stored", "listed"), [(COMPOSED, DECOMPOSED), (DECOMPOSED, COMPOSED)])
@pytest.mark.parametrize("folder", ["", "Pr\u00e4parate/"])
def test_composed_and_decomposed_names_are_the_same(tmp_path: Path, stored: str, listed: str, folder: str) -> None:
    tar = make(tmp_path / "t.tar", [f"{folder}{stored}=1", "b.jpg=2"])
    assert index(tar, keep=write_list(tmp_path, folder + listed)).warnings == []
    assert list(indexed(tar)) == [stored]
    index(tar, csv=write_csv(tmp_path / "l.csv", [f"{listed},4", "b.jpg,7"]))
    assert load_entries(tmp_path / "entries.npy")[:, 0].tolist() == [0, 1]


def test_two_spellings_in_one_archive_stay_two_files(tmp_path: Path) -> None:
    tar = make(tmp_path / "t.tar", [f"{COMPOSED}=1", f"{DECOMPOSED}=2", f"z.jpg h {DECOMPOSED}"])
    assert index(tar).tiles == 3 and indexed(tar)["z.jpg"] == b"2"
