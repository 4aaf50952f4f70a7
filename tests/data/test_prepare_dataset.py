"""scripts/prepare_dataset.py: from a folder to a tar that GNU tar could have made, with its index."""

import errno
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from indexing import ROOT
from tar_making import noise

from dinov2.data.tar_index import PrepareRequest, load_crc32, load_entries, load_names, prepare_dataset
from dinov2.data.tar_index import prepare as prepare_module
from dinov2.data.tar_index.prepare import measure
from dinov2.errors import UserError
from dinov2.utils import outputs
from dinov2.utils.outputs import OutputError


@pytest.fixture
def images(image_folder: Path) -> Path:
    """24 JPEGs in a/ and b/, a text file, a name that is too long for an old header, and one that is not ASCII."""
    (image_folder / "notes.txt").write_text("hello")
    (image_folder / ("n" * 150 + ".jpg")).write_bytes((image_folder / "a" / "a00.jpg").read_bytes())
    (image_folder / "carré_δ.jpg").write_bytes((image_folder / "a" / "a01.jpg").read_bytes())
    return image_folder


def pack(folder: Path, tar: Path) -> int:
    return prepare_module.pack(folder, tar, content=measure(folder), note=tar.with_suffix(".json"))


def test_the_tar_holds_what_gnu_tar_would_store(images: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "deep").mkdir(parents=True)
    (elsewhere / "deep" / "z.jpg").write_bytes(noise(1, 700))
    (images / "linked").symlink_to(elsewhere)
    (images / "one.jpg").symlink_to(elsewhere / "deep" / "z.jpg")
    (images / "a" / "hard.jpg").hardlink_to(images / "a" / "a00.jpg")
    tar = tmp_path / "ours.tar"
    assert pack(images, tar) == 30
    for folder, source in (("ours", tar), ("gnu", tmp_path / "gnu.tar")):
        if folder == "gnu":
            subprocess.run(["tar", "-chf", source, "-C", images, "."], check=True)
        (tmp_path / folder).mkdir()
        subprocess.run(["tar", "-xf", source, "-C", tmp_path / folder], check=True)
    compared = subprocess.run(
        ["diff", "-r", tmp_path / "ours", tmp_path / "gnu"], capture_output=True, text=True, check=False
    )
    assert compared.returncode == 0, compared.stdout
    with tarfile.open(tar) as opened:
        names = [member.name for member in opened]
        assert sum(member.islnk() for member in opened.getmembers()) == 2
        assert not any(member.linkname for member in opened if member.isreg())
    assert names == sorted(names, key=lambda name: name.split("/"))


def test_nothing_hidden_is_packed(images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (".ipynb_checkpoints/a00-checkpoint.jpg", "a/@eaDir/a00.jpg", "b/._b00.jpg"):
        (images / name).parent.mkdir(exist_ok=True)
        shutil.copy(images / "a" / "a00.jpg", images / name)
    assert pack(images, tmp_path / "t.tar") == 27
    assert "3 hidden files and folders are not packed" in capsys.readouterr().err


def test_the_tar_depends_on_nothing_but_the_files(images: Path, tmp_path: Path) -> None:
    pack(images, tmp_path / "one.tar")
    (images / "a" / "a03.jpg").chmod(0o600)
    pack(images, tmp_path / "two.tar")
    assert (tmp_path / "one.tar").read_bytes() == (tmp_path / "two.tar").read_bytes()
    assert (tmp_path / "one.tar").stat().st_size % 10240 == 0


def test_everything_in_one_call(images: Path, tmp_path: Path) -> None:
    request = PrepareRequest(images, tmp_path / "out: a=b")
    index, check = prepare_dataset(request)
    assert (index.tiles, index.members, check.good) == (26, 27, True)
    data, names = request.tar.read_bytes(), load_names(request.output_root / "pretrain_file_indices.npy")
    for _, i, start, end in load_entries(request.output_root / "pretrain_entries.npy").tolist():
        [original] = images.rglob(names[i])
        assert data[start:end] == original.read_bytes()
    values = load_crc32(request.output_root, "pretrain")
    assert values is not None and len(values) == 26
    root = (tmp_path / "out: a=b").resolve()
    assert request.dataset_string == f'Pathology:root="{root}":extra="{root}"'


def test_what_cannot_be_packed_is_refused_and_leaves_nothing(images: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    def refused(message: str, **fields: object) -> None:
        with pytest.raises(UserError, match=message):
            prepare_dataset(PrepareRequest(images, out, **fields))  # type: ignore[arg-type]
        assert not out.exists() or not list(out.iterdir())

    (images / "a" / "circle").symlink_to(images)
    refused("contains it")
    (images / "a" / "circle").unlink()
    (images / "broken.jpg").symlink_to(tmp_path / "none")
    refused("cannot be read.*gone")
    (images / "broken.jpg").unlink()
    os.mkfifo(images / "pipe.jpg")
    refused("not an ordinary file")
    (images / "pipe.jpg").unlink()
    refused("cannot be part", name="../x")
    with pytest.raises(UserError, match="inside --images"):
        prepare_dataset(PrepareRequest(images, images / "out"))
    with pytest.raises(UserError, match="not a folder"):
        prepare_dataset(PrepareRequest(images / "none", out))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="has no files"):
        prepare_dataset(PrepareRequest(tmp_path / "empty", out))


def test_a_tar_that_is_there_is_kept_unless_told(images: Path, tmp_path: Path) -> None:
    request = PrepareRequest(images, tmp_path / "out")
    prepare_dataset(request)
    before = request.tar.read_bytes()
    (images / "a" / "a00.jpg").unlink()
    with pytest.raises(UserError, match="--overwrite"):
        prepare_dataset(request)
    assert request.tar.read_bytes() == before
    index, check = prepare_dataset(PrepareRequest(images, tmp_path / "out", overwrite=True))
    assert index.tiles == 25 and check.good


@pytest.mark.parametrize("stage", ["infer_entries", "verify_dataset"])
def test_the_same_call_goes_on_after_a_kill(
    stage: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    request = PrepareRequest(images, tmp_path / "out")

    def killed(*args: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(prepare_module, stage, killed)
        prepare_dataset(request)
    with monkeypatch.context() as patched:
        patched.setattr(prepare_module, "pack", killed)  # not done again
        index, check = prepare_dataset(request)
    assert index.tiles == 26 and check.good and "going on with its index" in capsys.readouterr().err
    assert not request.unfinished.exists()
    with pytest.raises(UserError, match="exists.*--overwrite"):
        prepare_dataset(request)


def test_a_tar_of_other_files_is_not_gone_on_with(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = PrepareRequest(images, tmp_path / "out")
    with monkeypatch.context() as patched, pytest.raises(TypeError):
        patched.setattr(prepare_module, "infer_entries", None)
        prepare_dataset(request)
    (images / "late.jpg").write_bytes((images / "a" / "a00.jpg").read_bytes())
    with pytest.raises(UserError, match="other files, or they have changed"):
        prepare_dataset(request)
    index, _ = prepare_dataset(PrepareRequest(images, tmp_path / "out", overwrite=True))
    assert index.tiles == 27


def test_packing_that_was_killed_begins_anew_and_says_so(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out").mkdir()
    left = (
        tmp_path / "out" / f".pretrain_dataset.tar.{os.uname().nodename.partition('.')[0]}.{os.getpid()}.0123abcd.tmp"
    )
    left.write_bytes(bytes(5000))
    assert prepare_dataset(PrepareRequest(images, tmp_path / "out"))[1].good
    assert not left.exists() and "from the beginning" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("number", "reason"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "quota"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "reports a fault"),
    ],
)
def test_a_place_that_fails_while_packing_is_blamed_and_left_clean(
    number: int, reason: str, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object) -> None:
        monkeypatch.setattr(outputs, "_write_probe", fail)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(prepare_module._Packer, "close", fail)
    with pytest.raises(OutputError, match=f"cannot write into {tmp_path}/out: .*{reason}"):
        prepare_dataset(PrepareRequest(images, tmp_path / "out"))
    assert list((tmp_path / "out").iterdir()) == []


def test_what_has_no_room_is_not_begun(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1000))
    with pytest.raises(OutputError, match="the tar of 27 files needs about"):
        prepare_dataset(PrepareRequest(images, tmp_path / "out"))


def test_the_command(images: Path, tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(ROOT / "scripts" / "prepare_dataset.py"),
        "--images",
        images,
        "--output_root",
        tmp_path / "out",
    ]
    done = subprocess.run([*command, "--workers", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"dataset_path: 'Pathology:root={tmp_path}/out:extra={tmp_path}/out'" in done.stdout
    done = subprocess.run(
        [*command, "--name", "downstream", "--workers", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0 and "infer_entries.py" in done.stdout
    assert (tmp_path / "out" / "downstream_dataset.tar").exists()
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2 and done.stderr.startswith("error:")
    (images / "bad.jpg").write_bytes(b"no image")
    done = subprocess.run([*command, "--overwrite", "--workers", "1"], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "1 image" in done.stdout
