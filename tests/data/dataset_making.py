"""The same six tiles in every form that a data set reads, with what each of them should give."""

import tarfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from PIL import Image

from dinov2.data.datasets import ImageNet, ImageNet22k
from dinov2.data.tar_index import ConcatRequest, IndexRequest, concat_entries, infer_entries

SIDE = 16
CLASSES = ["n01", "n02"]


@dataclass
class Made:
    """A data set on disk.

    Attributes:
        string: names it.
        tiles: number of the picture at each index.
        targets: class at each index.
        needed: a file without which it cannot be opened.
        damage: makes the tile at index 0 unreadable.
    """

    string: str
    needed: Path
    damage: Callable[[], object]
    tiles: list[int] = field(default_factory=lambda: list(range(6)))
    targets: list[int] = field(default_factory=lambda: [0, 0, 0, 1, 1, 1])


def picture(number: int) -> np.ndarray:
    """(16, 16, 3) uint8, another one for each number."""
    return np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def write_pictures(root: Path, name: str = "{label}/{label}_{number}.png") -> list[Path]:
    """Six pictures without loss, the first three of class n01, the others of n02."""
    paths = []
    for number in range(6):
        path = root / name.format(label=CLASSES[number // 3], number=number)
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture(number)).save(path, format="PNG")
        paths.append(path)
    return paths


def write_tar(images: Path, tar: Path, names: list[str] | None = None) -> None:
    """The images below a folder, sorted, or some of them, under their base names; the first begins at byte 512."""
    tar.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(tar, "w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(images.rglob("*.png")):
            if names is None or path.name in names:
                archive.add(path, arcname=path.name)


def overwrite(path: Path, content: bytes = b"<html>", *, at: int | None = None) -> None:
    """Replace a file, or some bytes of it."""
    if at is None:
        path.write_bytes(content)
        return
    with path.open("r+b") as file:
        file.seek(at)
        file.write(content)


def image_folder(folder: Path) -> Made:
    paths = write_pictures(folder / "tiles")
    return Made(f'ImageFolder:root="{folder / "tiles"}"', folder / "tiles", lambda: overwrite(paths[0]))


def csv_list(folder: Path) -> Made:
    paths = write_pictures(folder / "tiles")
    rows = [f"{path.relative_to(folder)},{path.parent.name}" for path in reversed(paths)]
    (folder / "list.csv").write_text("\n".join(["path,class", *rows]) + "\n")
    string = f'CSV:file="{folder / "list.csv"}":label=class'
    damage = lambda: overwrite(paths[5])  # noqa: E731
    return Made(string, folder / "list.csv", damage, list(reversed(range(6))), [1, 1, 1, 0, 0, 0])


def hdf5(folder: Path) -> Made:
    files = [folder / "first.h5", folder / "second.h5"]
    for file, numbers in zip(files, (range(4), range(4, 6)), strict=True):
        with h5py.File(file, "w") as opened:
            pixels = np.stack([picture(number) for number in numbers])
            tiles = opened.create_dataset("tile", data=pixels, chunks=(1, SIDE, SIDE, 3), compression="gzip")
            opened["kind"] = [number // 3 for number in numbers]
            if 0 in numbers:
                first_byte = tiles.id.get_chunk_info(0).byte_offset
    string = "HDF5:" + ":".join(f'file="{file}"' for file in files) + ":label=kind"
    return Made(string, files[1], lambda: overwrite(files[0], b"damaged!", at=first_byte))


def pathology(folder: Path) -> Made:
    write_pictures(folder / "tiles")
    tar = folder / "pretrain_dataset.tar"
    write_tar(folder / "tiles", tar)
    report_folder = folder / "index"
    report_folder.mkdir()
    infer_entries(IndexRequest(tar, report_folder, "pretrain"))
    string = f'Pathology:root="{folder}":extra="{report_folder}"'
    return Made(string, tar, lambda: overwrite(tar, b"<html>", at=512), targets=[0] * 6)


def pathology_foundation(folder: Path) -> Made:
    write_pictures(folder / "tiles")
    for cohort, numbers in (("a", (0, 1, 2, 3)), ("b", (4, 5))):
        names = [f"{CLASSES[number // 3]}_{number}.png" for number in numbers]
        write_tar(folder / "tiles", folder / f"{cohort}.tar", names)
        infer_entries(IndexRequest(folder / f"{cohort}.tar", folder, cohort))
    concat_entries(ConcatRequest(folder, folder))
    string = f'PathologyFoundation:root="{folder}":extra="{folder}"'
    damage = lambda: overwrite(folder / "a.tar", b"<html>", at=512)  # noqa: E731
    return Made(string, folder / "b.tar", damage, targets=[0] * 6)


def knn(folder: Path) -> Made:
    paths = write_pictures(folder / "tiles")
    tar = folder / "downstream_dataset.tar"
    write_tar(folder / "tiles", tar)
    rows = [f"{path.name},{CLASSES.index(path.parent.name)},{path.parent.name}" for path in paths]
    (folder / "labels.csv").write_text("\n".join(["filename,label,class", *rows]) + "\n")
    infer_entries(IndexRequest(tar, folder, "query", csv=folder / "labels.csv"))
    string = f'KNN:root="{folder}":extra="{folder}":split=query'
    return Made(string, tar, lambda: overwrite(tar, b"<html>", at=512))


def image_net(folder: Path) -> Made:
    paths = write_pictures(folder / "train", "{label}/{label}_{number}.JPEG")
    (folder / "labels.txt").write_text('n01,"tench, Tinca tinca"\nn02,goldfish\nn03,shark\n')
    ImageNet(split="TRAIN", root=str(folder), extra=str(folder / "extra")).dump_extra()
    string = f'ImageNet:split=TRAIN:root="{folder}":extra="{folder / "extra"}"'
    return Made(string, folder / "extra" / "entries-TRAIN.npy", lambda: overwrite(paths[0]))


def image_net_22k(folder: Path) -> Made:
    write_pictures(folder / "tiles")
    for label in CLASSES:
        write_tar(folder / "tiles" / label, folder / "tars" / f"{label}.tar")
    ImageNet22k(root=str(folder / "tars"), extra=str(folder / "extra")).dump_extra()
    string = f'ImageNet22k:root="{folder / "tars"}":extra="{folder / "extra"}"'
    tar = folder / "tars" / "n01.tar"
    return Made(string, folder / "extra" / "entries.npy", lambda: overwrite(tar, b"<html>", at=512))


MAKERS: dict[str, Callable[[Path], Made]] = {
    "Pathology": pathology,
    "PathologyFoundation": pathology_foundation,
    "KNN": knn,
    "ImageFolder": image_folder,
    "CSV": csv_list,
    "HDF5": hdf5,
    "ImageNet": image_net,
    "ImageNet22k": image_net_22k,
}
