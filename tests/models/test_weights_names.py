"""Backbones go to timm and transformers and come back, and compute the same there."""

import json

import pytest
import torch
from golden import normal
from torch import Tensor

from dinov2.models.vision_transformer import ARCHITECTURES, DinoVisionTransformer
from dinov2.models.weights import (
    build_backbone_like,
    from_huggingface,
    from_timm,
    load_pretrained_backbone,
    to_huggingface,
    to_timm,
)

# Architecture, timm's word for it, feed-forward layer. The larger two take half a minute and up to three.
SIZES = [
    pytest.param("vit_small", "small", "mlp"),
    pytest.param("vit_small", "small", "swiglufused"),
    pytest.param("vit_base", "base", "mlp", marks=pytest.mark.slow),
    pytest.param("vit_large", "large", "mlp", marks=pytest.mark.slow),
    pytest.param("vit_giant2", "giant", "swiglufused", marks=pytest.mark.slow),
]
IMAGES = normal("images", (2, 3, 56, 56))
TOLERANCE = 1e-5


def backbone(arch: str, *, registers: int, ffn_layer: str = "mlp", chunks: int = 0, **kwargs) -> DinoVisionTransformer:
    """A backbone whose every tensor has something to tell, on images of 56 px."""
    torch.manual_seed(0)
    rule = {"interpolate_antialias": True, "interpolate_offset": 0.0} if registers else {}
    model = ARCHITECTURES[arch](
        14,
        img_size=56,
        init_values=1.0,
        ffn_layer=ffn_layer,
        block_chunks=chunks,
        num_register_tokens=registers,
        **rule,
        **kwargs,
    )
    for name, parameter in model.named_parameters():
        if parameter.ndim < 2 or "token" in name:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def assert_same(found: Tensor, expected: Tensor) -> None:
    """Largest difference, relative to the largest value."""
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE * expected.abs().max()


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


@torch.no_grad()
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(("arch", "word", "ffn_layer"), SIZES)
def test_timm(arch, word, ffn_layer, registers, tmp_path):
    timm = pytest.importorskip("timm")
    ours = backbone(arch, registers=registers, ffn_layer=ffn_layer, chunks=4)
    name = f"vit_{word}_patch14_{'reg4_' if registers else ''}dinov2"
    gated = {"mlp_ratio": 2.66667 * 2, "mlp_layer": timm.layers.SwiGLUPacked, "act_layer": torch.nn.SiLU}
    more = gated if ffn_layer != "mlp" else {}  # the giant's own settings, for the small one too
    theirs = timm.create_model(name, pretrained=False, img_size=56, num_classes=0, **more).eval()
    theirs.load_state_dict(to_timm(ours.state_dict()), strict=True)
    expected = ours.forward_features(IMAGES)
    tokens = theirs.forward_features(IMAGES)  # (B, 1 + R + N, D)
    assert_same(tokens[:, 0], expected["x_norm_clstoken"])
    assert_same(tokens[:, 1 + registers :], expected["x_norm_patchtokens"])

    torch.save(theirs.state_dict(), tmp_path / "timm.pth")
    del theirs, tokens
    again = build_backbone_like(from_timm(to_timm(ours.state_dict()))).eval()
    report = load_pretrained_backbone(again, tmp_path / "timm.pth")
    assert report.complete
    assert report.kept == ["mask_token"]
    found = again.forward_features(IMAGES)
    assert_same(found["x_norm_clstoken"], expected["x_norm_clstoken"])
    assert_same(found["x_norm_patchtokens"], expected["x_norm_patchtokens"])


@torch.no_grad()
@pytest.mark.parametrize("registers", [0, 4])
@pytest.mark.parametrize(("arch", "word", "ffn_layer"), SIZES)
def test_huggingface(arch, word, ffn_layer, registers, tmp_path):
    transformers = pytest.importorskip("transformers")
    from safetensors.torch import load_file, save_file

    ours = backbone(arch, registers=registers, ffn_layer=ffn_layer, chunks=4)
    kind = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=ours.embed_dim,
        num_hidden_layers=ours.n_blocks,
        num_attention_heads=ours.num_heads,
        image_size=56,
        patch_size=14,
        use_swiglu_ffn=ffn_layer != "mlp",
        **({"num_register_tokens": registers} if registers else {}),
    )
    model_class = getattr(transformers, f"{kind}Model")
    config.save_pretrained(tmp_path)
    save_file(to_huggingface(ours.state_dict()), tmp_path / "model.safetensors", metadata={"format": "pt"})
    theirs, info = model_class.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    expected = ours.forward_features(IMAGES)
    tokens = theirs.eval()(IMAGES).last_hidden_state  # (B, 1 + R + N, D)
    assert_same(tokens[:, 0], expected["x_norm_clstoken"])
    assert_same(tokens[:, 1 + registers :], expected["x_norm_patchtokens"])

    plain = {unchunked_name(name): tensor for name, tensor in ours.state_dict().items()}
    assert equal(from_huggingface(theirs.state_dict()), plain)  # the names in memory
    theirs.save_pretrained(tmp_path / "saved")
    assert equal(from_huggingface(load_file(tmp_path / "saved" / "model.safetensors")), plain)  # those in files
    del theirs, tokens
    other = backbone(arch, registers=registers, ffn_layer=ffn_layer)
    assert load_pretrained_backbone(other, tmp_path / "saved").complete
    assert equal(other.state_dict(), plain)


def unchunked_name(name: str) -> str:
    parts = name.split(".")
    return ".".join([parts[0], *parts[2:]]) if parts[0] == "blocks" else name


@pytest.mark.parametrize("prefix", ["", "dinov2.", "dinov2_with_registers."])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("ffn_layer", ["mlp", "swiglufused"])
def test_names_of_files_of_transformers(prefix, fused, ffn_layer, tmp_path):
    ours = backbone("vit_tiny", registers=4, ffn_layer=ffn_layer)
    state = to_huggingface(ours.state_dict())
    assert "encoder.layer.3.attention.attention.query.weight" in state
    if fused:
        for layer in range(12):
            for kind in ("weight", "bias"):
                place = f"encoder.layer.{layer}.attention.attention"
                parts = [state.pop(f"{place}.{part}.{kind}") for part in ("query", "key", "value")]
                state[f"{place}.qkv.{kind}"] = torch.cat(parts)
    file = {f"{prefix}{name}": tensor for name, tensor in state.items()}
    torch.save({**file, "classifier.weight": torch.zeros(2, 2)}, tmp_path / "model.bin")
    other = backbone("vit_tiny", registers=4, ffn_layer=ffn_layer)
    for parameter in other.parameters():
        parameter.data.zero_()
    assert load_pretrained_backbone(other, tmp_path / "model.bin").complete
    assert equal(other.state_dict(), ours.state_dict())


def test_a_model_of_transformers_in_several_files(tmp_path):
    from safetensors.torch import save_file

    ours = backbone("vit_tiny", registers=0)
    state = to_huggingface(ours.state_dict())
    first = {name: tensor for name, tensor in state.items() if "layer.1" in name}
    save_file(first, tmp_path / "model-00001-of-00002.safetensors")
    save_file(
        {name: state[name] for name in state.keys() - first.keys()}, tmp_path / "model-00002-of-00002.safetensors"
    )
    index = {name: f"model-0000{1 if name in first else 2}-of-00002.safetensors" for name in state}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    other = backbone("vit_tiny", registers=0)
    for parameter in other.parameters():
        parameter.data.zero_()
    load_pretrained_backbone(other, tmp_path)
    assert equal(other.state_dict(), ours.state_dict())


def test_timm_names_are_undone():
    ours = backbone("vit_tiny", registers=0, ffn_layer="swiglufused").state_dict()
    del ours["mask_token"]
    assert "blocks.0.mlp.fc1.weight" in to_timm(ours)
    assert equal(from_timm(to_timm(ours)), ours)


@torch.no_grad()
def test_positions_of_timm_with_rows_for_registers():
    """`no_embed_class=False` with registers: each token has a row of its own."""
    ours = backbone("vit_tiny", registers=4)
    state = ours.state_dict()
    rows = normal("rows", (1, 4, 192))
    theirs = {name: tensor for name, tensor in state.items() if name not in ("register_tokens", "mask_token")}
    theirs["reg_token"] = state["register_tokens"] - rows
    theirs["pos_embed"] = torch.cat((state["pos_embed"][:, :1], rows, state["pos_embed"][:, 1:]), dim=1)
    found = from_timm(theirs)
    assert torch.equal(found["pos_embed"], state["pos_embed"])
    assert torch.allclose(found["register_tokens"], state["register_tokens"], atol=1e-6)


@torch.no_grad()
def test_a_large_model_of_timm_as_uni_is_one(tmp_path):
    timm = pytest.importorskip("timm")
    theirs = timm.create_model(  # ViT-L/16 with LayerScale, of one block to be quick
        "vit_large_patch16_224", pretrained=False, img_size=64, init_values=1e-5, num_classes=0, depth=1
    ).eval()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    layout = {"embed_dim": 1024, "depth": 1, "num_heads": 16, "block_chunks": 0}
    ours = DinoVisionTransformer(64, 16, init_values=1e-5, **layout)
    assert load_pretrained_backbone(ours, tmp_path / "pytorch_model.bin").complete
    images = normal("images64", (2, 3, 64, 64))
    assert_same(ours.eval()(images), theirs(images))
