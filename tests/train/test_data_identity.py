"""A run notices whether it goes on with the tiles, groups and labels that it began with, wherever they are."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from dataset_making import csv_list, hdf5, image_folder, pathology, pathology_foundation, picture, write_tar
from PIL import Image
from runs import train

from dinov2.configs import complete_config
from dinov2.data import make_dataset
from dinov2.data.tar_index import (
    ConcatRequest,
    IndexRequest,
    VerifyRequest,
    concat_entries,
    infer_entries,
    verify_dataset,
)
from dinov2.errors import UserError
from dinov2.train.data_identity import identify_data
from dinov2.train.settings import check_settings, settings_of
from dinov2.train.train import get_args_parser, main
from dinov2.train.tuning_sets import Pair, open_pairs


def settings(string: str | list[str], *, pairs: list[Pair] | None = None, **data: str) -> dict[str, str]:
    cfg = complete_config({"train": {"dataset_path": string}, "data": data})
    found = identify_data(cfg, make_dataset(dataset_str=string), pairs or [])
    return settings_of(cfg, global_batch_size=2, data=found)


def refusal(saved: dict[str, str], own: dict[str, str]) -> str:
    with pytest.raises(UserError) as error:
        check_settings(saved, own)
    return str(error.value)


def rewrite_csv(folder: Path, change: Callable[[list[str]], list[str]]) -> None:
    header, *rows = (folder / "list.csv").read_text().split()
    (folder / "list.csv").write_text("\n".join([header, *change(rows)]) + "\n")


def grow_hdf5(folder: Path) -> None:
    with h5py.File(folder / "second.h5", "r+") as file:
        pixels = np.concatenate([file["tile"][:], picture(9)[None]])
        del file["tile"], file["kind"]
        file["tile"], file["kind"] = pixels, [1] * len(pixels)


def pack_again(folder: Path) -> None:
    """The same tiles in another order, and their index."""
    (folder / "pretrain_dataset.tar").unlink()
    for number, path in enumerate(sorted((folder / "tiles").rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"{number}.png"))
    write_tar(folder / "tiles", folder / "pretrain_dataset.tar")
    infer_entries(IndexRequest(folder / "pretrain_dataset.tar", folder / "index", "pretrain"))


def one_more_cohort(folder: Path) -> None:
    write_tar(folder / "tiles", folder / "c.tar", ["n01_0.png", "n02_4.png"])
    infer_entries(IndexRequest(folder / "c.tar", folder, "c"))
    concat_entries(ConcatRequest(folder, folder))


CHANGES = {
    "a tile more in a folder": (
        image_folder,
        lambda f: Image.fromarray(picture(7)).save(f / "tiles" / "n01" / "new.png"),
        "6 tiles.*7 tiles",
    ),
    "a tile with another name": (
        image_folder,
        lambda f: (f / "tiles/n01/n01_0.png").rename(f / "tiles/n01/n01_9.png"),
        "6 tiles.*6 tiles",
    ),
    "another tile of the same name": (
        image_folder,
        lambda f: Image.new("RGB", (9, 9)).save(f / "tiles/n01/n01_0.png"),
        "6 tiles.*6 tiles",
    ),
    "rows that changed places": (
        csv_list,
        lambda f: rewrite_csv(f, lambda rows: rows[::-1]),
        "6 tiles.*6 tiles",
    ),
    "a row less": (csv_list, lambda f: rewrite_csv(f, lambda rows: rows[:-1]), "6 tiles.*5 tiles"),
    "an array that grew": (hdf5, grow_hdf5, "6 tiles.*7 tiles"),
    "a tar in another order": (pathology, pack_again, "6 tiles.*6 tiles"),
    "one more cohort": (pathology_foundation, one_more_cohort, "6 tiles.*8 tiles"),
}


@pytest.mark.parametrize(("make", "change", "numbers"), CHANGES.values(), ids=CHANGES.keys())
def test_other_tiles_are_refused_with_both_numbers(make, change, numbers, tmp_path):
    string = make(tmp_path).string
    saved = settings(string)
    check_settings(saved, settings(string))
    change(tmp_path)
    message = refusal(saved, settings(string))
    assert message.startswith("the run began with other tiles than it is to go on with:\n  ")
    assert re.search(rf"tiles of train.dataset_path: {numbers}", message)


def test_the_same_tiles_in_another_place_go_on(tmp_path):
    made = [image_folder(tmp_path / "a"), csv_list(tmp_path / "b"), pathology(tmp_path / "c")]
    saved = settings([one.string for one in made])
    shutil.copytree(tmp_path, tmp_path / "moved", ignore=shutil.ignore_patterns("moved"))
    check_settings(saved, settings([one.string.replace(str(tmp_path), str(tmp_path / "moved")) for one in made]))


def test_a_list_of_absolute_paths_that_moved(tmp_path):
    made = csv_list(tmp_path)
    rewrite_csv(tmp_path, lambda rows: [f"{tmp_path}/{row}" for row in rows])
    saved = settings(made.string)
    (tmp_path / "tiles").rename(tmp_path / "elsewhere")
    rewrite_csv(tmp_path, lambda rows: [row.replace("/tiles/", "/elsewhere/") for row in rows])
    check_settings(saved, settings(made.string))


def test_another_held_out_list(tmp_path):
    made = image_folder(tmp_path)
    string = f'{made.string}:held_out=0.3:held_out_list="{tmp_path / "held.txt"}"'
    saved = settings(string)
    (listed,) = (tmp_path / "held.txt").read_text().split()
    (tmp_path / "held.txt").write_text(listed.translate({ord("1"): "2", ord("2"): "1"}) + "\n")
    assert "tiles of train.dataset_path" in refusal(saved, settings(string))


def test_checksums_are_compared_where_both_sides_have_them(tmp_path):
    string = pathology(tmp_path).string
    tar = tmp_path / "pretrain_dataset.tar"
    verify_dataset(VerifyRequest(tar, tmp_path / "index", "pretrain", decode=False, write_crc=True))
    own, name = settings(string), "checksums of train.dataset_path"
    without = {key: value for key, value in own.items() if key != name}
    check_settings(without, own)
    check_settings(own, without)
    assert name in refusal({**own, name: "0123"}, own)


def test_groups_count_where_they_decide_the_order(tmp_path):
    made = csv_list(tmp_path)
    string = made.string.replace(":label=class", ":group=class")
    saved, by_slide = settings(string), settings(string, draw_by="slide")
    rewrite_csv(tmp_path, lambda rows: [rows[0].rpartition(",")[0] + ",n01", *rows[1:]])
    check_settings(saved, settings(string))
    assert "groups of train.dataset_path: 2 groups" in refusal(by_slide, settings(string, draw_by="slide"))


def test_labelled_tiles_are_compared_with_their_labels(tmp_path):
    made = csv_list(tmp_path / "a")
    image_folder(tmp_path / "b")
    tune = {"datasets": {"crc": {"query": made.string, "test": made.string}}}

    def own() -> dict[str, str]:
        pairs = open_pairs(complete_config({"tune": tune}).tune, transform=np.asarray, max_pixels=9999)
        return settings(f"ImageFolder:root={tmp_path / 'b' / 'tiles'}", pairs=pairs)

    saved = own()
    rewrite_csv(tmp_path / "a", lambda rows: [rows[0].rpartition(",")[0] + ",n01", *rows[1:]])
    message = refusal(saved, own())
    assert "labels of tune.datasets.crc.query" in message
    assert "tiles of" not in message


def test_a_checkpoint_that_does_not_know_its_tiles(tmp_path, monkeypatch, caplog):
    """One that was written before; paths in it may be relative."""
    image_folder(tmp_path)
    own = settings(f"ImageFolder:root={tmp_path / 'tiles'}")
    monkeypatch.chdir(tmp_path)
    saved = {name: value for name, value in own.items() if " of " not in name}
    check_settings({**saved, "train.dataset_path": "ImageFolder:root=tiles"}, own)
    assert "does not say which tiles" in caplog.text
    with pytest.raises(UserError, match=r"train\.dataset_path: ImageFolder:root=/elsewhere"):
        check_settings({**saved, "train.dataset_path": "ImageFolder:root=/elsewhere"}, own)


def test_a_run_with_relative_paths_goes_on_from_anywhere(image_folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train("images", "run", "optim.max_iter=1")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    again = ["--config-file", str(tmp_path / "run/config.yaml"), "--output-dir", str(tmp_path / "run")]
    assert main(get_args_parser().parse_intermixed_args(again)) == 0
    log = tmp_path / "run" / "logs" / "log.txt"
    assert "is finished" in log.read_text()
    assert "optim.lr=" not in log.read_text()  # the scaled one in config.yaml is no setting without effect
    (image_folder / "a" / "more.jpg").write_bytes((image_folder / "a" / "a00.jpg").read_bytes())
    with pytest.raises(UserError, match="24 tiles .* -> 25 tiles"):
        main(get_args_parser().parse_intermixed_args(again))
    assert main(get_args_parser().parse_intermixed_args([*again, "--allow-config-changes"])) == 0
    assert "--allow-config-changes: the run goes on with tiles of train.dataset_path: 24 tiles" in log.read_text()
