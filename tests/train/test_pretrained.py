"""Training starts from any weights that are named, in both networks."""

from pathlib import Path

import pytest
import torch
from official import official_state
from runs import SMALL

from dinov2.configs import merge_layers, parse_overrides
from dinov2.errors import UserError
from dinov2.hub.frozen import check_pretrained
from dinov2.train.train import build_model

VIT_S = [*(s for s in SMALL if "student.arch" not in s), "student.arch=vit_small"]


def configuration(*overrides: str):
    return merge_layers([("test", parse_overrides([*VIT_S, *overrides]))])


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """The content of DINOv2's file in the cache; nothing can be downloaded."""
    monkeypatch.setenv("DINOV2_HOME", str(tmp_path))
    monkeypatch.setenv("DINOV2_OFFLINE", "1")
    path = tmp_path / "weights" / "dinov2_vits14" / "dinov2_vits14_pretrain.pth"
    path.parent.mkdir(parents=True)
    state = official_state()
    torch.save(state, path)
    return state


def test_a_name_of_the_hub(downloaded):
    model = build_model(configuration("student.pretrained_weights=dinov2_vits14"))
    for network in (model.student, model.teacher):
        weights = network["backbone"].state_dict()
        assert torch.equal(weights["blocks.11.norm2.bias"], downloaded["blocks.11.norm2.bias"])
        assert weights["pos_embed"].shape == (1, 5, 384)


def test_options(downloaded):
    cut = "student.pretrained_positions=center_cut"
    model = build_model(configuration("student.pretrained_weights=dinov2_vits14", cut))
    middle = downloaded["pos_embed"][0, 1:].view(37, 37, 384)[17:19, 17:19].flatten(0, 1)
    assert torch.equal(model.teacher["backbone"].pos_embed[0, 1:], middle)
    registers = ["student.pretrained_weights=dinov2_vits14", "student.num_register_tokens=4"]
    with pytest.raises(UserError, match=r"student.pretrained_allow=\[registers\]"):
        build_model(configuration(*registers))
    model = build_model(configuration(*registers, "student.pretrained_allow=[registers]"))
    assert torch.equal(model.student["backbone"].norm.weight, downloaded["norm.weight"])


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("student.pretrained_weights=dinov2_vits15", "did you mean dinov2_vits14"),
        ("student.pretrained_weights=none.pth", "none.pth does not exist"),
        ("student.pretrained_allow=[everything]", "unknown pretrained_allow 'everything': known: layerscale, partial"),
        ("student.pretrained_positions=crop", "unknown pretrained_positions 'crop'"),
        ("student.pretrained_network=both", "unknown pretrained_network 'both'"),
    ],
)
def test_mistakes_are_found_before_anything_is_built(override, message):
    with pytest.raises(UserError, match=message):
        check_pretrained(configuration(override).student)
