"""Lunit's models: their layouts, strict loading, and what they give an evaluation."""

import pytest
import torch
from golden import normal
from official import official_state

from dinov2.errors import UserError
from dinov2.eval.tokens import FeatureKind, backbone_network
from dinov2.hub import lunit
from dinov2.hub.trunks import ResNet50Trunk

CPU = torch.device("cpu")


def vit_state(patch: int) -> dict[str, torch.Tensor]:
    state = official_state(image=224, patch=patch, layerscale=False)
    del state["mask_token"]
    return state


@pytest.mark.parametrize(("key", "patch", "parameters"), [("DINO_p16", 16, 21_665_664), ("DINO_p8", 8, 21_670_272)])
def test_vision_transformers(key, patch, parameters, tmp_path):
    state = vit_state(patch)
    torch.save(state, tmp_path / "w.pth")
    model = lunit.vit_small(True, False, key, patch_size=patch, weights=tmp_path / "w.pth").eval()
    assert len(model.state_dict()) == 150
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    assert all(torch.equal(model.state_dict()[name], tensor) for name, tensor in state.items())
    assert model(normal("image", (1, 3, 32, 32))).shape == (1, 384)
    assert model.normalization.mean == (0.70322989, 0.53606487, 0.66096631)
    torch.save({**state, "blocks.0.ls1.gamma": torch.ones(384)}, tmp_path / "more.pth")
    with pytest.raises(UserError, match="1 unexpected"):
        lunit.vit_small(key=key, weights=tmp_path / "more.pth")


@torch.no_grad()
def test_resnet50(tmp_path):
    torchvision = pytest.importorskip("torchvision")
    torch.manual_seed(0)
    whole = torchvision.models.resnet50(weights=None).eval()
    state = {name: tensor for name, tensor in whole.state_dict().items() if not name.startswith("fc.")}
    torch.save(state, tmp_path / "bt.torch")
    model = lunit.resnet50(True, False, "BT", weights=tmp_path / "bt.torch").eval()
    assert len(model.state_dict()) == 318
    assert sum(parameter.numel() for parameter in model.parameters()) == 23_508_032
    images = normal("images", (2, 3, 224, 224))
    assert model(images).shape == (2, 2048, 7, 7)
    whole.fc = torch.nn.Identity()
    expected = whole(images)
    assert torch.allclose(model.pooled(images), expected, atol=1e-5)
    assert torch.allclose(backbone_network(model, FeatureKind(), dtype="fp32", device=CPU)(images), expected, atol=1e-5)
    both = backbone_network(model, FeatureKind(1, avgpool=True), dtype="fp32", device=CPU)(images)
    assert torch.allclose(both, torch.cat((expected, expected), dim=1), atol=1e-5)
    with pytest.raises(UserError, match="expected 1 .. 1"):
        backbone_network(model, FeatureKind(4), dtype="fp32", device=CPU)
    assert model.normalization is lunit.NORMALIZATION


def test_resnet_files_that_are_not_exact(tmp_path):
    state = ResNet50Trunk().state_dict()
    for change, message in (
        ({"fc.weight": torch.zeros(1)}, "has, beside them, fc.weight"),
        ({"conv1.weight": torch.zeros(1)}, "has of other shapes conv1.weight"),
    ):
        torch.save({**state, **change}, tmp_path / "w.torch")
        with pytest.raises(UserError, match=message):
            lunit.resnet50(weights=tmp_path / "w.torch")
    del state["bn1.weight"]
    torch.save(state, tmp_path / "w.torch")
    with pytest.raises(UserError, match="all 318 tensors: it lacks bn1.weight"):
        lunit.resnet50(weights=tmp_path / "w.torch")


def test_keys():
    assert lunit.get_pretrained_url("MoCoV2").endswith("/pretrained-weights/mocov2_rn50_ep200.torch")
    assert lunit.get_pretrained_url("DINO_p8").startswith(
        "https://github.com/lunit-io/benchmark-pathology-ssl/releases"
    )
    for call in (
        lambda: lunit.get_pretrained_url("DINO"),
        lambda: lunit.resnet50(key="DINO_p16"),
        lambda: lunit.vit_small(key="BT"),
    ):
        with pytest.raises(UserError, match="unknown key of Lunit's weights"):
            call()
    with pytest.raises(UserError, match="key=DINO_p8 has patches of 8 px, not patch_size=16"):
        lunit.vit_small(key="DINO_p8", patch_size=16)
