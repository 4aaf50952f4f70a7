"""DINOv2's entry points: local and with weights, as torch.hub calls them."""

from pathlib import Path

import pytest
import torch
from golden import normal
from official import ENTRY_POINTS, SIZES, official_shapes, official_state

import hubconf
from dinov2.errors import UserError
from dinov2.hub import backbones, classifiers
from dinov2.hub.backbones import Weights

ROOT = Path(__file__).resolve().parents[2]
NAMES = [f"dinov2_vit{size}14{registers}" for size in ENTRY_POINTS for registers in ("", "_reg")]


def test_entry_points_of_torch_hub():
    assert {*NAMES, *(f"{name}_lc" for name in NAMES)} == set(hubconf.__all__)
    for name in hubconf.__all__:
        assert getattr(hubconf, name).__name__ == name
        assert "pretrained unless pretrained=False" in getattr(hubconf, name).__doc__
    model = torch.hub.load(str(ROOT), "dinov2_vits14", source="local", pretrained=False, img_size=28)
    assert model(torch.zeros(1, 3, 28, 28)).shape == (1, 384)


@pytest.mark.parametrize("name", NAMES)
def test_architectures(name):
    with torch.device("meta"):
        model = getattr(backbones, name)(pretrained=False)
    registers = 4 if name.endswith("_reg") else 0
    shapes = official_shapes(ENTRY_POINTS[name[len("dinov2_vit")]], registers=registers)
    assert {key: tuple(tensor.shape) for key, tensor in model.state_dict().items()} == shapes
    assert (model.interpolate_antialias, model.interpolate_offset) == ((True, 0.0) if registers else (False, 0.1))


def test_weights(cache, tmp_path):
    state = official_state()
    target = cache / "dinov2_vits14" / "dinov2_vits14_pretrain.pth"
    target.parent.mkdir(parents=True)
    torch.save(state, target)
    for weights in (Weights.LVD142M, "LVD142M", str(target)):
        model = backbones.dinov2_vits14(weights=weights)
        assert torch.equal(model.pos_embed, state["pos_embed"])
    assert backbones.dinov2_vits14(img_size=56).pos_embed.shape == (1, 17, 384)
    with pytest.raises(UserError, match="unknown weights .* 'LVD142': did you mean LVD142M"):
        backbones.dinov2_vits14(weights="LVD142")
    with pytest.raises(UserError, match="num_register_tokens: 0 in the file, 4 in the model"):
        backbones.dinov2_vits14_reg(weights=target)


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 4])
def test_linear_classifiers(layers, cache):
    target = cache / f"dinov2_vits14_linear{layers}"
    target.mkdir(parents=True)
    width = (1 + layers) * SIZES["vit_small"][0]
    head = {"weight": normal("weight", (1000, width)), "bias": normal("bias", (1000,))}
    torch.save(head, target / f"dinov2_vits14_linear{'' if layers == 1 else 4}_head.pth")
    file = cache / "dinov2_vits14" / "dinov2_vits14_pretrain.pth"
    file.parent.mkdir(parents=True)
    torch.save(official_state(), file)
    model = classifiers.dinov2_vits14_lc(layers=layers, img_size=28).eval()
    images = normal("images", (2, 3, 28, 28))
    outputs = model.backbone.get_intermediate_layers(images, n=layers, return_class_token=True)
    tokens = [class_token for _, class_token in outputs] + [outputs[-1][0].mean(dim=1)]
    assert torch.allclose(model(images), torch.cat(tokens, dim=1) @ head["weight"].T + head["bias"], atol=1e-4)
    with pytest.raises(UserError, match="1 or 4 blocks"):
        classifiers.dinov2_vits14_lc(layers=2, pretrained=False)
    torch.save({**head, "more": torch.zeros(1)}, file.with_name("head.pth"))
    with pytest.raises(UserError, match="beside them, more"):
        classifiers.load_classifier("dinov2_vits14", layers=layers, weights=file.with_name("head.pth"))
