"""scripts/infer_entries.py: the same index as clemsgrs/dinov2 makes, but for what is deliberate; every fault named."""

import csv
import hashlib
import io
import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from indexing import ROOT, index, run, tiles_of, write_csv, write_list
from tar_making import BLOCK, END, header, member, noise

from dinov2.data.tar_index import (
    IndexRequest,
    LabelError,
    SelectionError,
    infer_entries,
    load_class_ids,
    load_entries,
    load_names,
)
from dinov2.data.tar_index import names as names_module

GOLDENS = Path(__file__).parent / "goldens" / "entries"
EXPECTED = json.loads((GOLDENS / "expected.json").read_text())


# --- the figures of the reference ------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("form", "digest"), [("gnu", "b5acf92aae77ff7c"), ("pax", "6deced3f3d38a85d"), ("ustar", "bc85d16bf319900d")]
)
def test_side_files_stay_what_they_are_to_the_byte(tmp_path: Path, form: str, digest: str) -> None:
    tar = Path(shutil.copy(GOLDENS / f"tiles_{form}.tar", tmp_path / "t.tar"))
    paths = "tiles/patch3.jpg\ntiles/sub/patch3.jpg"
    (tmp_path / "keep.txt").write_text((GOLDENS / "keep.txt").read_text().replace("patch3.jpg", paths))
    labels = (GOLDENS / "labels.csv").read_text().replace("patch3.jpg,0", paths.replace("jpg", "jpg,0"))
    (tmp_path / "labels.csv").write_text(labels)
    index(tar, name="a")
    index(tar, name="a", suffix="train", keep=tmp_path / "keep.txt")
    index(tar, name="q", csv=tmp_path / "labels.csv", keep=tmp_path / "keep.txt")
    files = sorted(path for path in tmp_path.iterdir() if path.suffix in (".npy", ".json"))
    assert len(files) == 8
    assert hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16] == digest


@pytest.mark.parametrize("flag", ["keep", "remove"])
def test_the_goldens_ambiguous_list_is_refused_with_the_members(tmp_path: Path, flag: str) -> None:
    shutil.copy(GOLDENS / "tiles_gnu.tar", tmp_path)
    with pytest.raises(SelectionError, match=r'"patch3.jpg": "tiles/patch3.jpg", "tiles/sub/patch3.jpg"'):
        index(tmp_path / "tiles_gnu.tar", **{flag: GOLDENS / "keep.txt"})
    table = write_csv(tmp_path / "l.csv", ["patch3.jpg,1", "patch0.jpg,0"])
    keep = write_list(tmp_path, "tiles/patch3.jpg", "patch0.jpg")
    with pytest.raises(LabelError, match=r'"patch3.jpg": "tiles/patch3.jpg", "tiles/sub/patch3.jpg"'):
        index(tmp_path / "tiles_gnu.tar", csv=table, keep=keep)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["keep.txt", "l.csv", "tiles_gnu.tar"]


# --- which members become tiles --------------------------------------------------------------------------------------


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


# --- lists -----------------------------------------------------------------------------------------------------------


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
    assert index(tar, remove=write_list(tar.parent, "a/same.jpg", "b/same.jpg")).tiles == 10
    with pytest.raises(SelectionError, match='"same.jpg": "a/same.jpg", "b/same.jpg"'):
        index(tar, remove=write_list(tar.parent, "same.jpg"))
    table = write_csv(tar.parent / "l.csv", [f"t{i}.jpg,0" for i in range(10)] + ["same.jpg,1"])
    assert index(tar, csv=table, keep=write_list(tar.parent, "t3.jpg")).tiles == 1
    with pytest.raises(LabelError, match='"same.jpg": "a/same.jpg", "b/same.jpg"'):
        index(tar, csv=table, keep=write_list(tar.parent, "a/same.jpg"))


def test_missing_lists_and_names_that_leave_the_folder(tar: Path) -> None:
    with pytest.raises(SelectionError, match="cannot be read"):
        index(tar, keep=tar.parent / "none.txt")
    with pytest.raises(LabelError, match="cannot be read"):
        index(tar, csv=tar.parent / "none.csv")
    with pytest.raises(SelectionError, match="exclude each other"):
        index(tar, keep=write_list(tar.parent), remove=write_list(tar.parent))
    for part in ("../x", "a/b", "", ".x", "a\nb", "a\x1b[0m"):
        with pytest.raises(SelectionError, match="cannot be part of a file name"):
            index(tar, name=part)
        with pytest.raises(SelectionError, match="cannot be part of a file name"):
            index(tar, suffix=part)
    with pytest.raises(SelectionError, match="not a folder"):
        infer_entries(IndexRequest(tar, tar.parent / "none"))


# --- the command, large archives -------------------------------------------------------------------------------------


def test_the_command_from_any_folder(tar: Path, tmp_path: Path) -> None:
    table = write_csv(tmp_path / "l.csv", [f"t{i}.jpg,{'xy'[i % 2]},k{i % 2}" for i in range(10)], "tile,grade,kind")
    keep = write_list(tmp_path, *(f"t{i}.jpg" for i in range(10)))
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
    nothing, empty = write_list(tmp_path, "none.jpg"), ["--tarball_path", tar, "--output_root", tmp_path]
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


def test_names_that_are_only_utf_8_together_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(member(b"\xc3") + member(b"\xa9.jpg") + END)
    index(tmp_path / "t.tar")
    assert load_names(tmp_path / "file_indices.npy") == {0: "\udcc3", 1: "\udca9.jpg"}


@pytest.mark.parametrize("constant", ["hash", "zlib"])
def test_names_with_one_hash_or_one_checksum_are_told_apart(
    tar: Path, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    """Names are found by a 64-bit hash and a CRC-32; either alone tells two names apart."""
    same = {"hash": lambda name: 7, "zlib": SimpleNamespace(crc32=lambda name: 7)}
    monkeypatch.setattr(names_module, constant, same[constant], raising=False)
    assert index(tar, keep=write_list(tar.parent, "other.jpg")).tiles == 0
    assert index(tar, keep=write_list(tar.parent, "t1.jpg")).tiles == 1


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


@pytest.mark.parametrize(
    "script",
    ["infer_entries", "infer_entries_loop", "concat_entries", "group_entries", "verify_dataset", "prepare_dataset"],
)
def test_a_misspelt_flag_is_told_before_anything_slow_is_imported(script: str) -> None:
    code = (
        f"import runpy, sys; sys.argv = ['x', '--tarbal_path', 'x']; "
        f"script = runpy.run_path({str(ROOT / 'scripts' / script)!r} + '.py')\n"
        "try: script['main']()\n"
        "except SystemExit as end: assert end.code == 2\n"
        "assert not {'numpy', 'torch', 'PIL', 'tqdm', 'concurrent.futures'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_indexing_imports_no_more_than_it_needs(tar: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path; from dinov2.data.tar_index import IndexRequest, infer_entries\n"
        "infer_entries(IndexRequest(Path(sys.argv[1]), Path(sys.argv[1]).parent))\n"
        "assert not {'torch', 'PIL', 'tqdm', 'multiprocessing', 'tarfile', 'numpy.ma'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code, tar], check=True)


def test_all_tars_of_a_folder(tmp_path: Path) -> None:
    source, output = tmp_path / "tars", tmp_path / "new" / "index"
    source.mkdir()
    for name in ("c10", "c2", "c1"):
        (source / f"{name}.tar").write_bytes(member(f"{name}/a.jpg".encode()) + member(b"b.jpg") + END)
    (source / "c3.tar").write_bytes(member(b"a.jpg"))
    (source / "c4.tar").write_bytes(member(b"notes.txt") + END)
    (source / "._c1.tar").write_bytes(b"AppleDouble")
    (source / "notes.txt").write_bytes(b"")
    done = run("infer_entries_loop.py", "--source", source, "--output", output)
    assert done.returncode == 2 and "c3.tar" in done.stderr and "truncated" in done.stderr
    *lines, summary = done.stdout.splitlines()
    assert [Path(line.split(":")[0]).name.split("_")[0] for line in lines] == ["c1", "c2", "c4", "c10"]
    assert summary == '5 tars: 4 indexed, 6 tiles; 1 without any: "c4.tar"; 1 refused: "c3.tar"'
    assert load_entries(output / "c10_entries.npy").shape == (2, 4)
    done = run("infer_entries_loop.py", "--source", source, "--output", source / "notes.txt")
    assert done.returncode == 2 and "a file is where a folder is needed" in done.stderr
    (source / "c3.tar").unlink()
    assert run("infer_entries_loop.py", "--source", source, "--output", output).returncode == 1
    keep = write_list(tmp_path, "b.jpg")
    flags = ("--source", source, "--output", output, "--keep", keep, "--suffix", "b", "--allow-empty")
    assert run("infer_entries_loop.py", *flags).returncode == 0
    assert load_entries(output / "c2_entries_b.npy").shape == (1, 4)
    done = run("infer_entries_loop.py", "--source", output, "--output", output)
    assert done.returncode == 2 and "has no .tar files" in done.stderr
