"""Backbones load by name from files of all known kinds, completely or not at all."""

import argparse
import logging

import numpy as np
import pytest
import torch
from golden import assert_close, fill, load_figures, normal
from official import SIZES, official_shapes, official_state

from dinov2.errors import UserError
from dinov2.layers import DINOHead
from dinov2.models.vision_transformer import ARCHITECTURES, vit_small, vit_tiny
from dinov2.models.weights import (
    LoadOptions,
    architecture_of,
    build_backbone_like,
    load_pretrained_backbone,
    read_networks,
    unchunked,
)
from dinov2.train.checkpoint import Checkpointer, Snapshot

IMAGE = normal("image", (1, 3, 56, 56))


def backbone(seed: int, **kwargs):
    torch.manual_seed(seed)
    model = vit_tiny(**{"patch_size": 14, "img_size": 56, "init_values": 1.0, "block_chunks": 0, **kwargs}).eval()
    for parameter in model.parameters():  # no tensor stays at a value that another model has too
        parameter.data += 0.02 * torch.randn_like(parameter)
    return model


def prefixed(state, *prefixes):
    return {f"{prefix}{name}": tensor for prefix in prefixes for name, tensor in state.items()}


HEAD = DINOHead(192, 8, hidden_dim=16, bottleneck_dim=4).state_dict()
NEW_NAMES = {
    name.replace("weight_g", "parametrizations.weight.original0").replace(
        "weight_v", "parametrizations.weight.original1"
    ): tensor
    for name, tensor in HEAD.items()
}
OTHER = backbone(7).state_dict()
LAYOUTS = {
    "official file": lambda sd: sd,
    "under model": lambda sd: {"model": sd},
    "Lightning": lambda sd: {"state_dict": prefixed(sd, "model.backbone."), "epoch": 3},
    "replica": lambda sd: prefixed(sd, "module.backbone."),
    "compiled": lambda sd: prefixed(sd, "_orig_mod."),
    "teacher export": lambda sd: {"teacher": {**prefixed(sd, "backbone."), **prefixed(HEAD, "dino_head.")}},
    "student export": lambda sd: {"student": {**prefixed(sd, "backbone."), **prefixed(NEW_NAMES, "ibot_head.")}},
    "training checkpoint of DINOv2": lambda sd: {
        "model": {
            "dino_loss.center": torch.zeros(1, 8),
            **prefixed(OTHER, "student.backbone."),
            **prefixed(sd, "teacher.backbone."),
            **prefixed(HEAD, "student.dino_head.", "teacher.dino_head."),
        },
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": np.float64(0.1)}]},
        "iteration": np.int64(5),
    },
    "DINO v1": lambda sd: {
        "student": {**prefixed(OTHER, "module.backbone."), **prefixed(HEAD, "module.head.")},
        "teacher": {**prefixed(sd, "backbone."), **prefixed(NEW_NAMES, "head.")},
        "args": argparse.Namespace(arch="vit_small", lr=np.float32(0.1)),
        "epoch": 99,
    },
    "classifier of timm": lambda sd: {**sd, "head.weight": torch.zeros(5, 192), "head.bias": torch.zeros(5)},
}


@pytest.mark.parametrize("chunks", [0, 4])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(layout, chunks, tmp_path):
    source, target = backbone(0, block_chunks=4 - chunks), backbone(1, block_chunks=chunks)
    torch.save(LAYOUTS[layout](source.state_dict()), tmp_path / "w.pth")
    assert not torch.allclose(source(IMAGE), target(IMAGE))
    report = load_pretrained_backbone(target, tmp_path / "w.pth")
    assert torch.equal(source(IMAGE), target(IMAGE))
    assert (len(report.matched), report.total, report.complete) == (175, 175, True)


def test_safetensors(tmp_path):
    from safetensors.torch import save_file

    source, target = backbone(0), backbone(1)
    save_file(source.state_dict(), tmp_path / "model.safetensors")
    load_pretrained_backbone(target, tmp_path / "model.safetensors")
    assert torch.equal(source(IMAGE), target(IMAGE))
    load_pretrained_backbone(backbone(2), tmp_path)  # a folder with that file


def test_checkpoint_folder(tmp_path):
    source, target = backbone(0), backbone(1)
    tensors = {**prefixed(source.state_dict(), "model.teacher.backbone."), "model.dino_loss.center": torch.zeros(1, 8)}
    tensors |= prefixed(OTHER, "model.student.backbone.", "optimizer.backbone.")
    Checkpointer(tmp_path).save(Snapshot(tensors, {"step": 1}), 1)
    folder = tmp_path / "step-0000001"
    load_pretrained_backbone(target, folder)
    assert torch.equal(source(IMAGE), target(IMAGE))
    load_pretrained_backbone(target, folder, options=LoadOptions(network="student"))
    assert torch.equal(target.norm.bias, OTHER["norm.bias"])
    file = next(folder.glob("*.safetensors"))
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(UserError, match=r"step-0000001 cannot be used: rank-00000.safetensors has"):
        load_pretrained_backbone(target, folder)


def test_networks_and_heads(tmp_path):
    torch.save(LAYOUTS["DINO v1"](backbone(0).state_dict()), tmp_path / "dino.pth")
    file = read_networks(tmp_path / "dino.pth")
    assert sorted(file.networks) == ["student", "teacher"]
    for network in file.networks.values():
        assert network.heads["dino_head"].keys() == HEAD.keys()
    assert file.choose("student")[0] == "student"
    torch.save({"teacher_dino_head": NEW_NAMES}, tmp_path / "head.pth")
    head = read_networks(tmp_path / "head.pth").networks["teacher"].heads["dino_head"]
    assert all(torch.equal(head[name], HEAD[name]) for name in HEAD)
    with pytest.raises(UserError, match="has heads, but no backbone"):
        load_pretrained_backbone(backbone(0), tmp_path / "head.pth")


@pytest.mark.filterwarnings("ignore:.*to a meta parameter")
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize("arch", SIZES)
def test_official_files_match_completely(arch, registers, tmp_path):
    torch.save(official_state(arch, registers=registers), tmp_path / "w.pth")
    ffn_layer = "swiglufused" if SIZES[arch][3] else "mlp"
    with torch.device("meta"):
        model = ARCHITECTURES[arch](
            14, img_size=518, init_values=1.0, ffn_layer=ffn_layer, block_chunks=0, num_register_tokens=registers
        )
    shapes = official_shapes(arch, registers=registers)
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == shapes
    model = model.to_empty(device="cpu") if arch in ("vit_small", "vit_base") else model
    report = load_pretrained_backbone(model, tmp_path / "w.pth")
    assert len(report.matched) == report.total == len(shapes)
    assert report.complete
    assert report.resized == []
    found = architecture_of(official_state(arch, registers=registers))
    assert (found.arch, found.patch_size, found.grid, found.num_registers) == (arch, 14, 37, registers)


@pytest.mark.parametrize("registers", [0, 4])
def test_positions_for_small_images_are_those_of_the_large_model(registers, tmp_path):
    """The golden features of a 518 px model on 56 px images come out of a 56 px model that has loaded its file."""
    case, rule = "vits14_518", {}
    if registers:
        case, rule = "vits14_reg4_518", {"interpolate_antialias": True, "interpolate_offset": 0.0}
    large = vit_small(14, num_register_tokens=registers, img_size=518, init_values=1e-5, **rule)
    fill(large, case)
    torch.save(large.state_dict(), tmp_path / "w.pth")
    small = vit_small(14, num_register_tokens=registers, img_size=56, init_values=1e-5, block_chunks=0, **rule).eval()
    report = load_pretrained_backbone(small, tmp_path / "w.pth")
    assert report.resized == ["pos_embed from 1369 to 16 patches (interpolate)"]
    features = small.forward_features(normal(f"{case}:image56x56", (2, 3, 56, 56)))
    for name in ("x_norm_clstoken", "x_norm_patchtokens", "x_prenorm"):
        assert_close(features[name], load_figures(case)[f"56x56/{name}"], 1e-5)


@pytest.mark.parametrize(("offset", "antialias"), [(0.1, False), (0.0, False), (0.0, True)])
def test_positions_of_518_for_224_px(offset, antialias, tmp_path):
    table = normal("table", (1, 1370, 384))
    torch.save({**official_state(), "pos_embed": table}, tmp_path / "w.pth")
    rule = {"interpolate_offset": offset, "interpolate_antialias": antialias}
    model = vit_small(14, img_size=224, init_values=1.0, block_chunks=0, **rule)
    load_pretrained_backbone(model, tmp_path / "w.pth")
    grid = table[:, 1:].view(1, 37, 37, 384).permute(0, 3, 1, 2)
    size = {"scale_factor": (16 + offset) / 37} if offset else {"size": (16, 16)}
    expected = torch.nn.functional.interpolate(grid, mode="bicubic", antialias=antialias, **size)
    assert torch.allclose(model.pos_embed[0, 1:], expected[0].permute(1, 2, 0).flatten(0, 1), atol=1e-5)
    assert torch.equal(model.pos_embed[0, 0], table[0, 0])


def test_positions_cut_out_of_the_middle(tmp_path):
    table = normal("table", (1, 1370, 384))
    torch.save({**official_state(), "pos_embed": table}, tmp_path / "w.pth")
    model = vit_small(14, img_size=224, init_values=1.0, block_chunks=0)
    load_pretrained_backbone(model, tmp_path / "w.pth", options=LoadOptions(positions="center_cut"))
    middle = table[:, 1:].view(37, 37, 384)[10:26, 10:26]
    assert torch.equal(model.pos_embed[0, 1:], middle.flatten(0, 1))
    assert torch.equal(model.pos_embed[0, 0], table[0, 0])
    larger = vit_small(14, img_size=560, init_values=1.0, block_chunks=0)
    with pytest.raises(UserError, match="40x40 positions cannot be cut out of one of 37x37"):
        load_pretrained_backbone(larger, tmp_path / "w.pth", options=LoadOptions(positions="center_cut"))


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"ffn_layer": "swiglufused"}, r"student.ffn_layer: mlp in the file, swiglu in the model"),
        ({"num_register_tokens": 4}, r"student.num_register_tokens: 0 in the file, 4 in the model.*=\[registers\]"),
        ({"patch_size": 28}, "student.patch_size: 14 in the file, 28 in the model"),
        ({"init_values": None}, r"student.layerscale: there in the file, absent in the model.*=\[layerscale\]"),
        ({"qkv_bias": False}, "student.qkv_bias: there in the file, absent in the model"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason(other, message, tmp_path):
    torch.save(backbone(0).state_dict(), tmp_path / "w.pth")
    target = backbone(1, **other)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    with pytest.raises(UserError, match=message):
        load_pretrained_backbone(target, tmp_path / "w.pth")
    assert all(torch.equal(before[name], tensor) for name, tensor in target.state_dict().items())


def test_another_architecture_is_named(tmp_path):
    torch.save(official_state("vit_base"), tmp_path / "w.pth")
    with pytest.raises(UserError, match=r"the file is vit_base/14 \(37x37 positions.*the model vit_tiny/14"):
        load_pretrained_backbone(backbone(0), tmp_path / "w.pth")


def test_a_file_of_another_kind_of_network_is_named(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(UserError, match="the file is no whole vision transformer, the model vit_tiny/14"):
        load_pretrained_backbone(backbone(0), tmp_path / "w.pth")


def test_registers_of_one_side_when_allowed(tmp_path):
    options = LoadOptions(allow=("registers",))
    with_registers, without = backbone(0, num_register_tokens=4), backbone(1)
    torch.save(with_registers.state_dict(), tmp_path / "with.pth")
    torch.save(without.state_dict(), tmp_path / "without.pth")
    target = backbone(2)
    report = load_pretrained_backbone(target, tmp_path / "with.pth", options=options)
    assert torch.equal(target.norm.weight, with_registers.norm.weight)
    assert report.complete
    assert "4 registers of the file are left out" in str(report)
    target = backbone(3, num_register_tokens=4)
    registers = target.register_tokens.clone()
    report = load_pretrained_backbone(target, tmp_path / "without.pth", options=options)
    assert report.kept == ["register_tokens"]
    assert torch.equal(target.register_tokens, registers)
    assert torch.equal(target.norm.weight, without.norm.weight)
    with pytest.raises(UserError, match="num_register_tokens: 4 in the file, 8 in the model"):
        load_pretrained_backbone(backbone(4, num_register_tokens=8), tmp_path / "with.pth", options=options)


@pytest.mark.parametrize("ffn_layer", ["mlp", "swiglufused"])
def test_layerscale_of_one_side_changes_no_feature(ffn_layer, tmp_path):
    options = LoadOptions(allow=("layerscale",))
    for source_scale, target_scale in ((1.0, None), (None, 1e-5)):
        source = backbone(0, init_values=source_scale, ffn_layer=ffn_layer)
        target = backbone(1, init_values=target_scale, ffn_layer=ffn_layer)
        torch.save(source.state_dict(), tmp_path / "w.pth")
        report = load_pretrained_backbone(target, tmp_path / "w.pth", options=options)
        assert "the features are the same" in str(report)
        assert torch.allclose(source(IMAGE), target(IMAGE), atol=1e-5)


def test_partial_loading_says_what_stays_random(tmp_path, caplog):
    state = backbone(0).state_dict()
    del state["norm.weight"]
    torch.save({**state, "extra": torch.zeros(1), "norm.bias": torch.zeros(3)}, tmp_path / "w.pth")
    target = backbone(1)
    with caplog.at_level(logging.INFO, "dinov2"):
        report = load_pretrained_backbone(target, tmp_path / "w.pth", options=LoadOptions(allow=("partial",)))
    assert (report.missing, report.unexpected) == (["norm.weight"], ["extra"])
    assert report.reshaped == ["norm.bias (3,) for (192,)"]
    assert torch.equal(target.cls_token, state["cls_token"])
    assert "173 of 175 tensors matched; 1 missing (norm.weight); 1 unexpected (extra)" in caplog.text
    torch.save({"other": torch.zeros(1)}, tmp_path / "none.pth")
    with pytest.raises(UserError, match="nothing for this backbone"):
        load_pretrained_backbone(target, tmp_path / "none.pth", options=LoadOptions(allow=("partial",)))


def test_a_file_without_mask_token_is_complete(tmp_path):
    state = backbone(0).state_dict()
    del state["mask_token"]
    torch.save(state, tmp_path / "w.pth")
    report = load_pretrained_backbone(backbone(1), tmp_path / "w.pth")
    assert report.complete
    assert report.kept == ["mask_token"]


@pytest.mark.parametrize("other", [{}, {"num_register_tokens": 4, "ffn_layer": "swiglufused"}, {"init_values": None}])
def test_a_backbone_is_built_from_its_weights(other, tmp_path):
    rule = {"interpolate_antialias": True, "interpolate_offset": 0.0} if "num_register_tokens" in other else {}
    source = backbone(0, **other, **rule)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    state = read_networks(tmp_path / "w.pth").choose()[1].backbone
    target = build_backbone_like(state).eval()
    target.load_state_dict(state)
    image = normal("image70", (1, 3, 70, 70))
    assert torch.equal(source(image), target(image))


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_pretrained_backbone(backbone(0), tmp_path / "none.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="cannot be read"):
        load_pretrained_backbone(backbone(0), tmp_path / "text.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no mapping"):
        load_pretrained_backbone(backbone(0), tmp_path / "list.pth")
    torch.save({"weights": {"a": torch.zeros(1)}, "n": 1}, tmp_path / "unknown.pth")
    with pytest.raises(UserError, match="At its top are: n, weights"):
        load_pretrained_backbone(backbone(0), tmp_path / "unknown.pth")
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="no weights that are known"):
        load_pretrained_backbone(backbone(0), tmp_path / "folder")
    torch.save({"norm.weight": torch.zeros(1), "module.norm.weight": torch.zeros(1)}, tmp_path / "twice.pth")
    with pytest.raises(UserError, match="two tensors are both norm.weight"):
        load_pretrained_backbone(backbone(0), tmp_path / "twice.pth")


@pytest.mark.parametrize("wrong", [{"network": "pupil"}, {"positions": "crop"}, {"allow": ("all",)}])
def test_options_that_are_not_known(wrong):
    with pytest.raises(UserError, match="unknown pretrained_"):
        LoadOptions(**wrong)


def test_chunk_numbers_are_removed_from_blocks_only():
    assert unchunked("blocks.2.7.attn.qkv.weight") == "blocks.7.attn.qkv.weight"
    assert unchunked("blocks.7.mlp.fc1.weight") == "blocks.7.mlp.fc1.weight"
    assert unchunked("mlp.0.4.weight") == "mlp.0.4.weight"
