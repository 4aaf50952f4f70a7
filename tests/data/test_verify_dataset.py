"""scripts/verify_dataset.py: every changed byte of every tile is found and named, and nothing else is."""

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from indexing import ROOT
from PIL import Image
from tar_making import BLOCK, END, fast_walk, header, member, noise

from dinov2.data.tar_index import (
    ConcatRequest,
    IndexRequest,
    SideFileError,
    StaleIndexError,
    VerifyReport,
    VerifyRequest,
    concat_entries,
    infer_entries,
    load_crc32,
    load_entries,
    verify_dataset,
)
from dinov2.data.tar_index import tile_check as tile_check_module
from dinov2.data.tar_index import verify as verify_module
from dinov2.utils.outputs import OutputError, output_errors


def jpeg(seed: int, side: int = 24, form: str = "JPEG") -> bytes:
    """A small noisy image."""
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def make(folder: Path, tiles: list[bytes], *, name: str = "pretrain", crc: bool = True, **fields: object) -> Path:
    """A tar of these tiles with index and CRC-32 values."""
    tar = folder / f"{name}_dataset.tar"
    tar.write_bytes(
        b"".join(member(b"tiles/%s_%04d.jpg" % (name.encode(), i), data) for i, data in enumerate(tiles)) + END
    )
    infer_entries(IndexRequest(tar, folder, name))
    if crc:
        assert check(tar, name=name, write_crc=True, decode=False).good
    return tar


def check(tar: Path, *, name: str = "pretrain", **fields: object) -> VerifyReport:
    return verify_dataset(VerifyRequest(tar, tar.parent, name, **fields))  # type: ignore[arg-type]


def flip(path: Path, bits: list[int]) -> None:
    """Flip these bits of a file."""
    data = bytearray(path.read_bytes())
    for bit in bits:
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def test_a_good_archive_is_good_and_stays_as_it_is(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(20)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    report = check(tar)
    assert (
        report.good and not report.notes and report.tiles == 20 and report.line() == "20 tiles are as they were indexed"
    )
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert (tmp_path / "pretrain_verified.jsonl").read_text() == ""


def test_500_flipped_bits_are_all_found(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(520)])
    entries, rng = load_entries(tmp_path / "pretrain_entries.npy").astype(np.int64), np.random.default_rng(5)
    rows = sorted(rng.choice(520, 500, replace=False).tolist())
    flip(tar, [int(rng.integers(entries[row, 2] * 8, entries[row, 3] * 8)) for row in rows])
    report = check(tar, decode=False)
    assert [problem.row for problem in report.problems] == rows
    assert dict(report.kinds) == {"bytes": 500}
    lines = [json.loads(line) for line in (tmp_path / "pretrain_verified.jsonl").read_text().splitlines()]
    tiles = [line for line in lines if "row" in line]
    assert [line["row"] for line in tiles] == rows
    assert tiles[0]["name"] == f"tiles/pretrain_{rows[0]:04d}.jpg" and "CRC-32" in tiles[0]["reason"]
    assert [line["start"] for line in tiles] == entries[rows, 2].tolist()


def test_any_flipped_bit_of_the_archive_is_found_or_without_effect(tmp_path: Path) -> None:
    """Outside the tiles: headers have checksums; the padding after a tile belongs to no tile."""
    tar = make(tmp_path, [noise(i, 300 + 40 * i) for i in range(8)])
    good, found, rng = tar.read_bytes(), 0, np.random.default_rng(6)
    walked = fast_walk(tar)
    for bit in rng.integers(0, 8 * len(good), 150).tolist():
        flip(tar, [bit])
        try:
            clean = check(tar, decode=False).good
        except StaleIndexError:
            clean = False
        if clean:
            assert fast_walk(tar) == walked
            data = tar.read_bytes()
            assert all(data[start : start + size] == good[start : start + size] for _, start, size in walked)
        found += not clean
        tar.write_bytes(good)
    assert found > 100


DAMAGES = {
    "cut short": lambda: jpeg(1)[:-40],
    "garbage": lambda: noise(1, 500),
    "a web page": lambda: b"<html>not found</html>",
    "one byte": lambda: b"x",
    "a gif": lambda: jpeg(1, form="GIF"),
    "too large": lambda: _png_of(5000, 4000),
    "a bomb": lambda: _png_of(4000, 4000)[:-60],
    "a damaged png": lambda: jpeg(1, form="PNG")[:100] + b"\0" * 40,
    "a text with a jpeg's beginning": lambda: b"\xff\xd8\xff\xe0" + b"hello" * 30,
}


def _png_of(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("1", (width, height)).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("workers", [0, 2])
def test_what_does_not_decode_is_named_and_nothing_else(tmp_path: Path, workers: int) -> None:
    damaged = [make_bad() for make_bad in DAMAGES.values()]
    good = [jpeg(i, form=form) for i, form in enumerate(("JPEG", "PNG", "TIFF", "BMP", "WEBP"))]
    grey = io.BytesIO()
    Image.new("I;16", (8, 8), 40_000).save(grey, "TIFF")
    tiles = [tile for pair in zip(damaged, good * 2, strict=False) for tile in pair] + [grey.getvalue()]
    tar = make(tmp_path, tiles)
    report = check(tar, workers=workers)
    assert [problem.row for problem in report.problems] == [2 * i for i in range(len(damaged))]
    assert dict(report.kinds) == {"image": len(damaged)} and report.unchanged and not report.good
    assert all(len(problem.json().splitlines()) == 1 for problem in report.problems)


def test_size_limit_of_tiles(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(0), jpeg(1, side=40)])
    assert check(tar, max_pixels=1600).good
    assert [problem.row for problem in check(tar, max_pixels=1599).problems] == [1]


def test_workers_do_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(1200)], crc=False)
    assert "--write_crc" in check(tar, decode=False).notes[0]
    assert check(tar, workers=2, write_crc=True, decode=False).good
    two = load_crc32(tmp_path, "pretrain")
    (tmp_path / "pretrain_crc32.npy").unlink()
    assert check(tar, workers=0, write_crc=True).good
    one = load_crc32(tmp_path, "pretrain")
    assert one is not None and two is not None and len(one) == 1200 and (one == two).all()


def test_values_are_not_renewed_for_a_changed_archive(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(10)])
    values = (tmp_path / "pretrain_crc32.npy").read_bytes()
    start = int(load_entries(tmp_path / "pretrain_entries.npy")[4, 2])
    flip(tar, [8 * start + 80])
    report = check(tar, write_crc=True, decode=False)
    assert report.kinds["bytes"] == 1 and "not written" in report.notes[-1]
    assert (tmp_path / "pretrain_crc32.npy").read_bytes() == values


def test_values_of_another_index_are_refused(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(10)])
    keep = tmp_path / "keep.txt"
    keep.write_text("pretrain_0003.jpg\n")
    path = tmp_path / "pretrain_crc32.npy"
    values = path.read_bytes()
    [warning] = infer_entries(IndexRequest(tar, tmp_path, "pretrain", keep=keep)).warnings
    assert "deleted" in warning and load_crc32(tmp_path, "pretrain") is None
    path.write_bytes(values)
    for read in (lambda: load_crc32(tmp_path, "pretrain"), lambda: check(tar)):
        with pytest.raises(StaleIndexError, match="made for another"):
            read()
    assert check(tar, write_crc=True).tiles == 1 and check(tar).good


@pytest.mark.parametrize("row", [0, 7, 19])
def test_rows_that_are_no_members_are_found(tmp_path: Path, row: int) -> None:
    """An index without fingerprints, whose offsets lie in the archive but not at its tiles."""
    tar = make(tmp_path, [jpeg(i) for i in range(20)], crc=False)
    path = tmp_path / "pretrain_entries.npy"
    entries = np.load(path)
    (tmp_path / "pretrain_index.json").unlink()
    for column, value in ((2, entries[row, 2] + 512), (3, entries[row, 3] - 1), (1, 3 if row != 3 else 4), (1, 99)):
        changed = entries.copy()
        changed[row, column] = value
        np.save(path, changed)
        report = check(tar, decode=False)
        assert report.kinds["place"] >= 1 and row in {problem.row for problem in report.problems}, (column, value)
    np.save(path, entries)
    assert check(tar).good
    np.save(path, entries[::-1])
    assert check(tar, decode=False).kinds["place"] >= 19
    np.save(path, np.concatenate([entries, entries[-1:]]))
    assert check(tar, decode=False).kinds["place"] == 1


def test_a_damaged_archive_is_reported_beside_its_tiles(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(40)])
    start = int(load_entries(tmp_path / "pretrain_entries.npy")[20, 2])
    flip(tar, [8 * (start - BLOCK) + 3, 8 * start + 100])
    report = check(tar, decode=False)
    assert any("checksum" in fault for fault in report.archive)
    assert [problem.row for problem in report.problems] == [20]


def test_changed_names_are_found(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(5)])
    data = tar.read_bytes()
    start = int(load_entries(tmp_path / "pretrain_entries.npy")[2, 2]) - BLOCK
    tar.write_bytes(data[:start] + header(b"tiles/renamed.jpg", len(jpeg(2))) + data[start + BLOCK :])
    report = check(tar, decode=False)
    assert any("does not have the names" in fault for fault in report.archive) and not report.problems


def test_a_shortened_or_missing_archive_is_refused(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(5)])
    tar.write_bytes(tar.read_bytes()[:2048])
    with pytest.raises(StaleIndexError, match="row"):
        check(tar)
    tar.unlink()
    with pytest.raises(ValueError, match="not a file"):
        check(tar)


def test_subsets_and_hard_links(tmp_path: Path) -> None:
    tar = tmp_path / "pretrain_dataset.tar"
    parts = [member(b"t%d.jpg" % i, jpeg(i)) for i in range(9)]
    parts.insert(4, header(b"link.jpg", 0, b"1", target=b"t2.jpg"))
    tar.write_bytes(b"".join(parts) + END)
    keep = tmp_path / "keep.txt"
    keep.write_text("t8.jpg\nlink.jpg\nt0.jpg\n")
    infer_entries(IndexRequest(tar, tmp_path, "pretrain", "few", keep=keep))
    assert check(tar, suffix="few", write_crc=True).good
    values = load_crc32(tmp_path, "pretrain", suffix="few")
    assert values is not None and len(values) == 3


def test_cohorts(tmp_path: Path) -> None:
    for name in "AB":
        tar = make(tmp_path, [jpeg(i + ord(name)) for i in range(6)], name=name, crc=False)
        tar.rename(tmp_path / f"{name}.tar")
    concat_entries(ConcatRequest(tmp_path, tmp_path))
    request = VerifyRequest(tmp_path, tmp_path, "pretrain", write_crc=True)
    assert verify_dataset(request).good
    entries = load_entries(tmp_path / "pretrain_entries.npy")
    flip(tmp_path / "B.tar", [8 * int(entries[8, 2]) + 77])
    report = verify_dataset(request)
    assert [(problem.row, Path(problem.tar).name) for problem in report.problems if problem.kind == "bytes"] == [
        (8, "B.tar")
    ]
    with pytest.raises(ValueError, match="not a folder"):
        verify_dataset(VerifyRequest(tmp_path / "A.tar", tmp_path, "pretrain"))


def test_decoding_without_pillow_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = make(tmp_path, [jpeg(0)])
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(ValueError, match="--no-decode"):
        check(tar)
    assert check(tar, decode=False).good


def test_a_worker_that_dies_is_an_error_with_advice(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(600)])
    script = (
        "import sys, os\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "from pathlib import Path\n"
        "from dinov2.data.tar_index import VerifyRequest, verify_dataset, tile_check, verify\n"
        "def die(stretch): os._exit(1)\n"
        "verify.check_stretch = die\n"
        "if __name__ == '__main__':\n"
        "    verify_dataset(VerifyRequest(Path(sys.argv[1]), Path(sys.argv[1]).parent, 'pretrain', workers=2))\n"
    )
    path = tmp_path / "dying.py"
    path.write_text(script)
    done = subprocess.run([sys.executable, path, tar], capture_output=True, text=True, timeout=60, check=False)
    assert "--workers 1" in done.stderr


def test_what_was_found_is_told_though_it_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(3)] + [b"no image"])

    def fail(*args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for name in ("write_text", "_commit_crc"):
        with monkeypatch.context() as patched:
            patched.setattr(verify_module, name, output_errors(tmp_path)(fail))
            report = check(tar, write_crc=True)
        assert report.kinds == {"image": 1} and "disk is full" in str(report.unwritten)
        assert report.line() == "1 faults in 4 tiles (1 image), 0 of whole archives"


@pytest.mark.parametrize("place", ["file/report.jsonl", "/dev/full/report.jsonl", "/proc/report.jsonl", "."])
def test_the_report_is_tried_before_the_work(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = make(tmp_path, [jpeg(0)])
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(verify_module, "_check_headers", None)
    with pytest.raises(OutputError, match="cannot write"):
        check(tar, report=tmp_path / place)


def test_a_tile_that_the_disk_does_not_give_is_a_bad_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(3)])

    def broken(descriptor: int, length: int, offset: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(tile_check_module, "os", SimpleNamespace(**{**vars(os), "pread": broken}))
    report = check(tar)
    assert [problem.reason for problem in report.problems] == ["cannot be read: Input/output error"] * 3


def test_the_command(tmp_path: Path) -> None:
    tar = make(tmp_path, [jpeg(i) for i in range(10)], crc=False)
    command = [
        sys.executable,
        str(ROOT / "scripts" / "verify_dataset.py"),
        "--tarball_path",
        tar,
        "--output_root",
        tmp_path,
    ]
    command += ["--prefix", "pretrain", "--workers", "1"]
    done = subprocess.run([*command, "--write_crc"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "10 tiles are as they were indexed" in done.stdout
    flip(tar, [8 * int(load_entries(tmp_path / "pretrain_entries.npy")[6, 2]) + 400])
    done = subprocess.run([*command, "--report", tmp_path / "r.jsonl"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "row 6 (tiles/pretrain_0006.jpg)" in done.stderr and "r.jsonl" in done.stdout
    assert "pretrain_0006" in (tmp_path / "r.jsonl").read_text()
    done = subprocess.run([*command, "--suffix", "none"], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error:")


def test_messages_for_hostile_images_stay_on_one_line() -> None:
    reason = tile_check_module._undecodable(b"\x1b[2J\n" * 10)
    assert reason is not None and "\n" not in reason and "\x1b" not in reason


def test_a_table_of_the_wrong_length_is_refused(tmp_path: Path) -> None:
    make(tmp_path, [jpeg(i) for i in range(5)])
    path = tmp_path / "pretrain_crc32.npy"
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(SideFileError):
        load_crc32(tmp_path, "pretrain")
