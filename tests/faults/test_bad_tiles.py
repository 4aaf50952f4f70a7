"""Damaged tiles and archives under a running loader."""

import io
import json
import os
import pickle
import random
import tarfile
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.configs import complete_config
from dinov2.data import make_dataset
from dinov2.data.datasets import TileReadError
from dinov2.data.file_reader import FileChangedError
from dinov2.data.quarantine import TooManyBadTilesError
from dinov2.data.tar_index import IndexRequest, VerifyRequest, fingerprint, infer_entries, load_entries, verify_dataset
from dinov2.train.plan import build_augmentation, build_loader, build_quarantine

TILES, DAMAGED, SIDE, BATCH = 1000, 50, 24, 20


def encoded(pixels: np.ndarray, form: str = "JPEG", mode: str | None = None, **options: object) -> bytes:
    stream = io.BytesIO()
    image = Image.fromarray(pixels)
    (image.convert(mode) if mode else image).save(stream, form, **options)
    return stream.getvalue()


def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


# Nine kinds of tile that cannot be used; the tenth, flipped bits, comes when the archive is complete.
DAMAGES = [
    lambda i: encoded(noise(i))[:-300],
    lambda i: random.Random(i).randbytes(700),
    lambda i: b"<html>404</html>",
    lambda i: bytes(900),
    lambda i: b"\xff\xd8\xff\xe0" + b"JFIF" * 50,
    lambda i: encoded(noise(i), "PNG")[:200],
    lambda i: encoded(noise(i), "GIF"),
    lambda i: encoded(noise(i)[..., 0].astype(np.float32), "TIFF"),
    lambda i: encoded(np.zeros((4200, 4200), dtype=bool), "PNG"),
]
GOOD = [
    lambda i: encoded(noise(i)),
    lambda i: encoded(noise(i), "PNG"),
    lambda i: encoded(noise(i), "JPEG", "CMYK"),
    lambda i: encoded(noise(i), "PNG", "RGBA"),
    lambda i: encoded(noise(i), "PNG", "P"),
    lambda i: encoded(noise(i)[..., 0].astype(np.uint16) << 8, "TIFF"),
]


@pytest.fixture(scope="module")
def damaged_set(tmp_path_factory) -> tuple[Path, list[int]]:
    """A folder with an indexed tar of 1,000 tiles and its CRC-32 values, and the 50 tiles that are bad."""
    folder = tmp_path_factory.mktemp("damaged")
    bad = sorted(random.Random(1).sample(range(TILES), DAMAGED))
    flipped = bad[5::9]  # not in the first or last 16 KiB, of which the fingerprint sees every byte
    kind = {tile: DAMAGES[number % len(DAMAGES)] for number, tile in enumerate(set(bad) - set(flipped))}
    with tarfile.open(folder / "pretrain_dataset.tar", "w") as tar:
        for tile in range(TILES):
            data = kind.get(tile, GOOD[tile % len(GOOD)])(tile)
            info = tarfile.TarInfo(f"tiles/t{tile:04d}.jpg")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    infer_entries(IndexRequest(folder / "pretrain_dataset.tar", folder, "pretrain"))
    verify_dataset(VerifyRequest(folder / "pretrain_dataset.tar", folder, "pretrain", write_crc=True))
    entries = load_entries(folder / "pretrain_entries.npy").astype(int)
    for tile in flipped:
        flip_unnoticed(folder / "pretrain_dataset.tar", range(*entries[tile, 2:]))
    return folder, bad


def flip_unnoticed(archive: Path, places: range) -> None:
    """Flip a bit at one of these bytes that the fingerprint does not sample."""
    before = fingerprint(archive)
    with archive.open("r+b", buffering=0) as file:
        for place in places[600::50]:
            byte = os.pread(file.fileno(), 1, place)[0]
            os.pwrite(file.fileno(), bytes([byte ^ 4]), place)
            if fingerprint(archive) == before:
                return
            os.pwrite(file.fileno(), bytes([byte]), place)
    raise AssertionError("every byte of this tile is in the fingerprint")


def configuration(folder: Path, output: Path, **data: object) -> object:
    return complete_config(
        {
            "train": {
                "dataset_path": f"Pathology:root={folder}:extra={folder}",
                "output_dir": str(output),
                "batch_size_per_gpu": BATCH,
            },
            "crops": {"global_crops_size": 14, "local_crops_size": 14, "local_crops_number": 1},
            "student": {"patch_size": 7},
            "data": data,
        }
    )


@pytest.mark.parametrize("workers", [0, 2, 4])
def test_an_epoch_over_damaged_tiles_names_exactly_those(damaged_set, tmp_path, workers):
    folder, bad = damaged_set
    cfg = configuration(folder, tmp_path, max_bad_share=0.05)
    cfg.train.num_workers = workers
    dataset = make_dataset(dataset_str=cfg.train.dataset_path, transform=build_augmentation(cfg))
    quarantine = build_quarantine(cfg, dataset)
    used = []
    for batch in islice(build_loader(cfg, dataset, start=0, device=torch.device("cpu")), TILES // BATCH):
        quarantine.note(batch["bad_tiles"])
        quarantine.share(quarantine.pending)
        used += batch["tiles"].tolist()
    report = [json.loads(line) for line in quarantine.path.read_text().splitlines()]
    assert sorted(line["tile"] for line in report) == bad
    assert {line["member"] for line in report} == {f"tiles/t{tile:04d}.jpg" for tile in bad}
    assert sum("CRC-32" in line["reason"] for line in report) == DAMAGED / 10
    assert not set(bad) & set(used) and set(range(TILES)) - set(bad) <= set(used)
    print(f"{len(report)} of {len(bad)} bad tiles named, {workers} workers")


def test_replacements_do_not_depend_on_workers(damaged_set, tmp_path):
    folder, _ = damaged_set
    found = []
    for workers in (0, 2):
        cfg = configuration(folder, tmp_path)
        cfg.train.num_workers = workers
        dataset = make_dataset(dataset_str=cfg.train.dataset_path, transform=build_augmentation(cfg))
        loader = build_loader(cfg, dataset, start=400, device=torch.device("cpu"))
        found.append([batch["tiles"].tolist() for batch in islice(loader, 15)])
    assert found[0] == found[1]


@pytest.mark.parametrize(("policy", "allowed"), [("replace", 10), ("raise", 0)])
def test_past_the_limit_the_run_stops_with_a_summary(damaged_set, tmp_path, policy, allowed):
    folder, _ = damaged_set
    cfg = configuration(folder, tmp_path, on_bad_tile=policy, max_bad_share=0.01)
    cfg.train.num_workers = 0
    dataset = make_dataset(dataset_str=cfg.train.dataset_path, transform=build_augmentation(cfg))
    quarantine = build_quarantine(cfg, dataset)
    with pytest.raises(TooManyBadTilesError, match=rf"max_bad_share: {allowed}\. .*verify_dataset\.py"):
        for batch in islice(build_loader(cfg, dataset, start=0, device=torch.device("cpu")), TILES // BATCH):
            quarantine.note(batch["bad_tiles"])
            quarantine.share(quarantine.pending)
    assert quarantine.count > allowed


def test_an_archive_cut_or_replaced_under_a_running_loader(damaged_set, tmp_path):
    source, bad = damaged_set
    for file in source.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    archive = tmp_path / "pretrain_dataset.tar"
    data = archive.read_bytes()
    dataset = make_dataset(dataset_str=f"Pathology:root={tmp_path}:extra={tmp_path}")
    good = [tile for tile in range(TILES) if tile not in bad]
    assert dataset[good[-1]][0].size == (SIDE, SIDE)
    with archive.open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(FileChangedError, match=r"pretrain_dataset\.tar ends before byte .* cut off or replaced"):
        dataset[good[-1]]
    archive.unlink()
    archive.write_bytes(data[:-512])
    for_a_worker = pickle.loads(pickle.dumps(dataset))
    with pytest.raises(FileChangedError, match="was replaced while the run went on"):
        for_a_worker[good[0]]


def test_storage_that_stutters_is_asked_again(damaged_set, monkeypatch):
    folder, bad = damaged_set
    dataset = make_dataset(dataset_str=f"Pathology:root={folder}:extra={folder}")
    tile = next(tile for tile in range(TILES) if tile not in bad)
    expected = dataset.get_image_data(tile)
    reader = dataset.readers[0]
    failures = [OSError(5, "Input/output error")] * 3
    real = reader._open

    def stutter() -> int:
        if failures:
            raise failures.pop()
        return real()

    monkeypatch.setattr(reader, "_open", stutter)
    monkeypatch.setattr("dinov2.data.file_reader._PAUSE", 0.001)
    assert dataset.get_image_data(tile) == expected
    failures += [OSError(5, "Input/output error")] * 8
    with pytest.raises(TileReadError, match="cannot be read: Input/output error"):
        dataset.get_image_data(tile)
