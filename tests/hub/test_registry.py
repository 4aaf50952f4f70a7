"""The list of published weights says nothing that is not so."""

import copy
import json

import pytest
import torch
from omegaconf import OmegaConf

from dinov2.configs import complete_config, validate_config
from dinov2.errors import UserError
from dinov2.hub import find, published
from dinov2.hub.backbones import load_backbone
from dinov2.hub.commands import COMMANDS
from dinov2.hub.frozen import check_frozen_backbone
from dinov2.hub.trunks import TRUNKS

BACKBONES = [entry.name for entry in published().values() if entry.kind == "backbone"]


@pytest.fixture(scope="module")
def defaults():
    return complete_config({})


@pytest.mark.parametrize("name", list(published()))
def test_entries(name):
    entry = find(name)
    assert entry.licence
    assert entry.page.startswith("https://")
    assert all(url.startswith("https://") for url in entry.urls)
    assert entry.by_hand == (not entry.urls)
    assert len(entry.mean) == len(entry.std) == (3 if entry.kind == "backbone" else 0)
    assert entry.licence in entry.notice
    assert entry.sha256 == ""


@pytest.mark.parametrize("name", BACKBONES)
def test_settings_describe_a_model_of_that_size(name, defaults):
    entry = find(name)
    cfg = copy.deepcopy(defaults)
    for key, value in entry.configuration.items():
        OmegaConf.update(cfg, key, value)
    validate_config(cfg)
    check_frozen_backbone(cfg.student)
    assert entry.image_size % cfg.student.patch_size == 0
    with torch.device("meta"):
        trunk = TRUNKS.get(cfg.student.arch)
        model = trunk() if trunk else load_backbone(name, pretrained=False)
    without_mask_token = [n for n, _ in model.named_parameters() if n != "mask_token" or name.startswith("dinov2_")]
    count = sum(model.get_parameter(n).numel() for n in without_mask_token)
    assert entry.parameters in (None, count)


def test_the_figures_of_the_published_layouts():
    parameters = {name: find(name).parameters for name in BACKBONES}
    assert parameters["lunit/BT"] == 23_508_032
    assert (parameters["lunit/DINO_p16"], parameters["lunit/DINO_p8"]) == (21_665_664, 21_670_272)
    assert parameters["dinov2_vits14"] == 22_056_576


def test_unknown_names():
    with pytest.raises(UserError, match="did you mean dinov2_vits14"):
        find("dinov2_vits1")


def run(capsys, *arguments):
    from dinov2.hub.__main__ import get_args_parser

    args = get_args_parser().parse_args(arguments)
    COMMANDS[args.command].run(args)
    return capsys.readouterr().out


def test_commands(capsys, tmp_path):
    table = run(capsys, "list").splitlines()
    assert len(table) == 1 + len(published())
    assert next(line for line in table if line.startswith("uni ")).count("by hand") == 1
    entries = json.loads(run(capsys, "list", "--json"))
    assert entries[0]["name"] == "dinov2_vits14"
    assert "non-commercial use only" in run(capsys, "show", "lunit/SwAV")
    with pytest.raises(UserError, match="downloads are switched off"):
        run(capsys, "download", "--offline", "dinov2_vits14")


def test_inspect(capsys, tmp_path):
    state = load_backbone("dinov2_vits14_reg", pretrained=False, img_size=28).state_dict()
    weights = {f"backbone.{name}": tensor for name, tensor in state.items()}
    weights["dino_head.mlp.0.weight"] = torch.zeros(2, 2)
    torch.save({"teacher": weights, "student": weights, "dino_loss": {"center": torch.zeros(1)}}, tmp_path / "w.pth")
    text = run(capsys, "inspect", str(tmp_path / "w.pth"))
    assert "teacher: vit_small/14 (2x2 positions, mlp, 4 registers, LayerScale), with DINOv2's names" in text
    assert "student: " in text
    assert "heads: dino_head of 1 tensors" in text
