"""Published models are evaluated by name, with their own architecture and normalisation."""

import json
from pathlib import Path

import pytest
import torch
from eval_making import write_tiles
from official import official_state

from dinov2.errors import UserError
from dinov2.eval import knn, linear
from dinov2.eval.feature_files import origin_of
from dinov2.hub.lunit import LUNIT_MEAN
from dinov2.hub.trunks import ResNet50Trunk

SIZES = ["--resize-size", "32", "--crop-size", "32", "--num-workers", "0", "--resamples", "0"]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with tiles and a cache that has two files of Lunit's; nothing can be downloaded."""
    write_tiles(tmp_path / "train", slides=2)
    write_tiles(tmp_path / "val", slides=2, prefix="other")
    monkeypatch.setenv("DINOV2_HOME", str(tmp_path))
    monkeypatch.setenv("DINOV2_OFFLINE", "1")
    torch.manual_seed(0)
    files = {
        "lunit_BT/bt_rn50_ep200.torch": ResNet50Trunk().state_dict(),
        "lunit_DINO_p16/dino_vit_small_patch16_ep200.torch": official_state(image=224, patch=16, layerscale=False),
    }
    del files["lunit_DINO_p16/dino_vit_small_patch16_ep200.torch"]["mask_token"]
    for name, state in files.items():
        path = tmp_path / "weights" / name
        path.parent.mkdir(parents=True)
        torch.save(state, path)
    return tmp_path


def evaluate(command, place: Path, *more: str) -> dict:
    data = [f"--{name}-dataset=ImageFolder:root={place / name}" for name in ("train", "val")]
    parser = command.get_args_parser()
    command.main(parser.parse_intermixed_args([*data, *SIZES, "--output-dir", str(place / "out"), *more]))
    return json.loads((place / "out" / f"evaluation_{command.__name__.split('.')[-1]}.json").read_text())


@pytest.mark.parametrize(("name", "arch"), [("lunit/BT", "resnet50"), ("lunit/DINO_p16", "vit_small")])
def test_knn(place, name, arch):
    features = place / "features.npz"
    found = evaluate(knn, place, "--hub-model", name, "--nb_knn", "1", "--features", str(features))
    assert found["backbone"]["arch"] == arch
    assert found["weights"]["file"] == name
    assert len(found["weights"]["sha256"]) == 64
    assert found["results"][0]["classifier"] == "1-NN"
    assert tuple(origin_of(features)["images"]["mean"]) == LUNIT_MEAN


def test_linear_on_a_trunk(place):
    options = ["--n-last-blocks", "1", "--epochs", "1", "--epoch-length", "2", "--learning-rates", "0.1"]
    found = evaluate(linear, place, "--hub-model", "lunit/BT", *options)
    assert found["results"]


def test_mistakes(place):
    for more, message in (
        (["--hub-model", "lunit/B"], "unknown published weights 'lunit/B': did you mean lunit/BT"),
        (["--hub-model", "dinov2_vits14_linear1"], "this is a linear head"),
        (["--hub-model", "uni"], "handed out at https://huggingface.co/MahmoodLab/UNI only"),
        (["--hub-model", "dino_vits16"], "downloads are switched off"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate(knn, place, *more)
