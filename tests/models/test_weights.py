"""Backbones load by name from bare files and exports, completely or not at all."""

import pytest
import torch

from dinov2.errors import UserError
from dinov2.models.vision_transformer import vit_tiny
from dinov2.models.weights import load_pretrained_backbone, unchunked


def backbone(seed: int, **kwargs):
    torch.manual_seed(seed)
    return vit_tiny(**{"patch_size": 14, "img_size": 56, "init_values": 1.0, "block_chunks": 0, **kwargs}).eval()


@pytest.mark.parametrize(
    ("wrap", "chunks"),
    [
        (lambda sd: sd, 4),
        (lambda sd: {"model": sd}, 0),
        (
            lambda sd: {
                "teacher": {**{f"backbone.{k}": v for k, v in sd.items()}, "dino_head.mlp.0.bias": torch.zeros(3)}
            },
            4,
        ),
        (lambda sd: {f"module.backbone.{k}": v for k, v in sd.items()}, 0),
    ],
)
def test_layouts(wrap, chunks, tmp_path):
    source, target, x = backbone(0), backbone(1, block_chunks=chunks), torch.randn(1, 3, 56, 56)
    torch.save(wrap(source.state_dict()), tmp_path / "w.pth")
    assert not torch.allclose(source(x), target(x))
    load_pretrained_backbone(target, str(tmp_path / "w.pth"))
    assert torch.equal(source(x), target(x))


def test_positions_of_another_size_are_resampled(tmp_path):
    source, target = backbone(0, img_size=112), backbone(1)
    torch.save(source.state_dict(), tmp_path / "w.pth")
    load_pretrained_backbone(target, str(tmp_path / "w.pth"))
    grid = source.pos_embed[0, 1:].view(1, 8, 8, -1).permute(0, 3, 1, 2)
    expected = torch.nn.functional.interpolate(grid, size=(4, 4), mode="bicubic")[0].permute(1, 2, 0).flatten(0, 1)
    assert torch.allclose(target.pos_embed[0, 1:], expected, atol=1e-6)
    assert torch.equal(target.pos_embed[0, 0], source.pos_embed[0, 0])


@pytest.mark.parametrize(
    ("other", "message"),
    [
        ({"ffn_layer": "swiglufused"}, "48 missing"),
        ({"num_register_tokens": 4}, "missing .register_tokens"),
        ({"patch_size": 28}, "another shape"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(other, message, tmp_path):
    torch.save(backbone(0).state_dict(), tmp_path / "w.pth")
    target = backbone(1, **other)
    before = target.norm.weight.detach().clone(), target.cls_token.detach().clone()
    with pytest.raises(UserError, match=message):
        load_pretrained_backbone(target, str(tmp_path / "w.pth"))
    assert torch.equal(target.cls_token, before[1])


def test_files_that_are_no_weights(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        load_pretrained_backbone(backbone(0), str(tmp_path / "none.pth"))
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(UserError, match="cannot be read"):
        load_pretrained_backbone(backbone(0), str(tmp_path / "text.pth"))
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(UserError, match="no mapping"):
        load_pretrained_backbone(backbone(0), str(tmp_path / "list.pth"))


def test_chunk_numbers_are_removed_from_blocks_only():
    assert unchunked("blocks.2.7.attn.qkv.weight") == "blocks.7.attn.qkv.weight"
    assert unchunked("blocks.7.mlp.fc1.weight") == "blocks.7.mlp.fc1.weight"
    assert unchunked("mlp.0.4.weight") == "mlp.0.4.weight"
