"""scripts/prepare_dataset.py: from a folder to a tar that GNU tar could have made, with its index."""

import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from indexing import ROOT
from tar_making import noise

from dinov2.data.tar_index import PrepareRequest, load_crc32, load_entries, load_names, prepare_dataset
from dinov2.data.tar_index.prepare import pack
from dinov2.errors import UserError


@pytest.fixture
def images(image_folder: Path) -> Path:
    """24 JPEGs in a/ and b/, a text file, a name that is too long for an old header, and one that is not ASCII."""
    (image_folder / "notes.txt").write_text("hello")
    (image_folder / ("n" * 150 + ".jpg")).write_bytes((image_folder / "a" / "a00.jpg").read_bytes())
    (image_folder / "carré_δ.jpg").write_bytes((image_folder / "a" / "a01.jpg").read_bytes())
    return image_folder


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
