"""What is given to an evaluation without effect is said; images have the sizes of the run that is evaluated."""

import numpy as np
import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config, load_config_file
from dinov2.errors import Mistakes
from dinov2.eval.arguments import make_parser
from dinov2.eval.settings import load_settings
from dinov2.eval.setup import image_sizes
from dinov2.eval.unused import ROWS, unused_flags


def said(name: str, *arguments: str) -> list[str]:
    args = make_parser(name).parse_intermixed_args(list(arguments))
    return list(unused_flags(name, args, load_settings(args, Mistakes())[1]))


CASES = [
    ("knn", ("--vote", "majority"), ("--temperature", "1")),
    ("cross_validate", ("--probes", "linear"), ("--temperature", "1", "--vote", "majority")),
    ("cross_validate", ("--probes", "1-NN"), ("--iterations", "5")),
    ("knn", (), ("--n-tries", "5")),
    ("linear", ("--resamples", "0"), ("--group-by", "slide")),
    ("linear", (), ("--test-metric-types", "mean_per_class_accuracy")),
    ("linear", ("--features", "there.npz"), ("--num-workers", "3", "--features-on-disk")),
    ("log_regression", ("--features", "there.npz"), ("--batch-size", "3")),
    ("knn", ("--features-on-disk",), ("--gather-on-cpu",)),
]


@pytest.mark.parametrize(("name", "reasons", "useless"), CASES)
def test_flags_without_effect(name, reasons, useless, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    np.savez("there.npz")
    assert said(name, *reasons) == []
    (line,) = said(name, *reasons, *useless)
    assert all(flag in line for flag in useless if flag.startswith("--"))


def test_every_row_has_a_case():
    given = {flag for _, _, useless in CASES for flag in useless}
    for row in ROWS:
        assert given & {f"--{flag.replace('_', '-')}" for flag in row.flags}, row.flags


def test_settings_that_no_evaluation_reads():
    (line,) = said("linear", "optim.lr=1", "student.arch=vit_small", "knn.nb_knn=[3]", "--opts", "data.batch_size=3")
    assert line.startswith("without effect: optim.lr, knn.nb_knn; linear reads")
    assert said("knn", "knn.nb_knn=[3]", "speed.num_workers=1") == []
    assert "knn.output_dir" in said("knn", "knn.output_dir=x")[0]


def sizes(tmp_path, name: str, *arguments: str, **sections: dict) -> tuple[int, int]:
    """(resize, crop) for a run with these settings."""
    file = tmp_path / "config.yaml"
    settings = complete_config({"train": {"output_dir": str(tmp_path)}, **sections})
    OmegaConf.save(settings, file)
    args = make_parser(name).parse_intermixed_args(["--config-file", str(file), *arguments])
    found = image_sizes(args, *load_settings(args, Mistakes()))
    return found["resize_size"], found["crop_size"]


def test_images_have_the_sizes_of_the_run(tmp_path):
    small = {"crops": {"global_crops_size": 112}}
    tuned = {**small, "tune": {"query_dataset_path": "a", "test_dataset_path": "b", "tile_size": 100, "crop_size": 96}}
    assert sizes(tmp_path, "knn") == (256, 224)
    assert sizes(tmp_path, "knn", **small) == (128, 112)
    assert sizes(tmp_path, "knn", "data.image_size=224", **small) == (112, 112)
    assert sizes(tmp_path, "log_regression", **small) == (112, 112)
    assert sizes(tmp_path, "linear", **tuned) == (100, 96)
    assert sizes(tmp_path, "knn", "--crop-size", "64", **tuned) == (256, 64)
    assert sizes(tmp_path, "knn", "--resize-size", "200", **small) == (200, 112)


def test_other_configurations_keep_the_usual_sizes(tmp_path):
    args = make_parser("knn").parse_intermixed_args(["--config-file", "eval.yaml"])
    (tmp_path / "eval.yaml").write_text(
        "crops: {global_crops_size: 518, local_crops_size: 98}\nstudent: {patch_size: 14}\n"
    )
    args.config_file = str(tmp_path / "eval.yaml")
    assert load_config_file(args.config_file).crops.global_crops_size == 518
    assert image_sizes(args, *load_settings(args, Mistakes())) == {"resize_size": 256, "crop_size": 224}
