"""Shapes, chunks, position resizing and errors of the vision transformer."""

import numpy as np
import pytest
import torch

from dinov2.configs import complete_config
from dinov2.errors import UserError
from dinov2.models import build_model_from_cfg
from dinov2.models.position import resize_position_grid
from dinov2.models.vision_transformer import ARCHITECTURES, DinoVisionTransformer, drop_path_rates, vit_tiny

PARAMETERS = {  # at 14 px patches, 518 px positions, with LayerScale
    "vit_small": (22_056_576, {}),
    "vit_base": (86_580_480, {}),
    "vit_large": (304_368_640, {}),
    "vit_giant2": (1_136_480_768, {"ffn_layer": "swiglufused"}),
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameter_counts(name):
    expected, kwargs = PARAMETERS[name]
    with torch.device("meta"):
        model = ARCHITECTURES[name](patch_size=14, img_size=518, init_values=1e-5, **kwargs)
    assert sum(p.numel() for p in model.parameters()) == expected


def tiny(**kwargs) -> DinoVisionTransformer:
    torch.manual_seed(0)
    return DinoVisionTransformer(img_size=56, patch_size=14, embed_dim=24, depth=6, num_heads=2, **kwargs).eval()


@pytest.mark.parametrize(
    ("chunks", "first", "last"),
    [(0, "blocks.0.", "blocks.5."), (4, "blocks.0.0.", "blocks.5.5."), (2, "blocks.0.0.", "blocks.1.5.")],
)
def test_chunk_names(chunks, first, last):
    names = [name for name in tiny(block_chunks=chunks).state_dict() if name.startswith("blocks.")]
    assert names[0].startswith(first)
    assert names[-1].startswith(last)


def test_chunks_do_not_change_the_function():
    plain, chunked = tiny(block_chunks=0), tiny(block_chunks=3)
    chunked.load_state_dict(dict(zip(chunked.state_dict(), plain.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 56, 56)
    assert torch.equal(plain(x), chunked(x))
    for ours, theirs in zip(plain.get_intermediate_layers(x, 3), chunked.get_intermediate_layers(x, 3), strict=True):
        assert torch.equal(ours, theirs)


def test_outputs_and_intermediate_layers():
    model, x = tiny(num_register_tokens=4), torch.randn(2, 3, 56, 28)
    output = model.forward_features(x)
    shapes = {
        name: tuple(output[name].shape)
        for name in ("x_norm_clstoken", "x_norm_regtokens", "x_norm_patchtokens", "x_prenorm")
    }
    assert shapes == {
        "x_norm_clstoken": (2, 24),
        "x_norm_regtokens": (2, 4, 24),
        "x_norm_patchtokens": (2, 8, 24),
        "x_prenorm": (2, 13, 24),
    }
    (maps,) = model.get_intermediate_layers(x, n=1, reshape=True)
    assert maps.shape == (2, 24, 4, 2)
    assert torch.equal(maps.flatten(2).transpose(1, 2), output["x_norm_patchtokens"])
    first, third = model.get_intermediate_layers(x, n=[3, 1])
    assert torch.equal(first, model.get_intermediate_layers(x, n=[1])[0])
    assert not torch.equal(first, third)
    with pytest.raises(ValueError, match="blocks 0 to 5"):
        model.get_intermediate_layers(x, n=[9])


def test_list_of_crops_equals_each_alone():
    model = tiny()
    crops, masks = [torch.randn(2, 3, 56, 56), torch.randn(6, 3, 28, 28)], [torch.rand(2, 16) > 0.5, None]
    for crop, mask, together in zip(crops, masks, model.forward_features(crops, masks), strict=True):
        alone = model.forward_features(crop, mask)
        assert torch.allclose(alone["x_prenorm"], together["x_prenorm"], atol=1e-5)


def test_masked_patches_are_hidden():
    model = tiny()
    mask = torch.zeros(1, 16, dtype=torch.bool)
    mask[0, 0] = True
    image = torch.randn(1, 3, 56, 56)
    changed = image.clone()
    changed[:, :, :14, :14] += 1
    assert torch.equal(
        model.forward_features(image, mask)["x_prenorm"], model.forward_features(changed, mask)["x_prenorm"]
    )
    assert not torch.equal(model(image), model(changed))


REFERENCE_POSITIONS = [  # M, size, offset, antialias, patches 0..2 channel 0, sum with the class position
    (16, (98, 98), 0.1, False, (0.260923, 0.318176, 0.374940), 0.08032),
    (16, (98, 98), 0.0, False, (0.268183, 0.326372, 0.383600), 1.13383),
    (16, (98, 98), 0.0, True, (0.331575, 0.383440, 0.437554), 1.09458),
    (37, (224, 224), 0.1, False, (0.565876, 0.613720, 0.659207), 27.99005),
    (37, (224, 224), 0.0, True, (0.607139, 0.638750, 0.670251), 25.4498),
    (16, (98, 196), 0.1, False, (0.248867, 0.278858, 0.306692), 0.16261),
]


@pytest.mark.parametrize(("side", "size", "offset", "antialias", "first", "total"), REFERENCE_POSITIONS)
def test_positions_of_the_reference(side, size, offset, antialias, first, total):
    n = np.arange((side * side + 1) * 2, dtype=np.float64)
    stored = torch.from_numpy(np.sin(n * 0.013).astype(np.float32)).view(1, -1, 2)
    grid = resize_position_grid(
        stored[0, 1:].view(side, side, 2), (size[0] // 14, size[1] // 14), antialias=antialias, offset=offset
    )
    assert grid.flatten(0, 1)[:3, 0].tolist() == pytest.approx(first, abs=2e-6)
    assert float(grid.double().sum() + stored[0, 0].sum()) == pytest.approx(total, abs=1e-3)


@pytest.mark.parametrize("antialias", [False, True])
def test_positions_equal_bicubic_interpolation_with_gradient(antialias):
    grid = torch.randn(9, 9, 4, requires_grad=True)
    resized = resize_position_grid(grid, (4, 13), antialias=antialias, offset=0.0)
    expected = torch.nn.functional.interpolate(
        grid.permute(2, 0, 1)[None], size=(4, 13), mode="bicubic", antialias=antialias
    )[0].permute(1, 2, 0)
    assert torch.allclose(resized, expected, atol=1e-5)
    weights = torch.randn_like(resized)
    (ours,) = torch.autograd.grad((resized * weights).sum(), grid)
    (theirs,) = torch.autograd.grad((expected * weights).sum(), grid)
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_drop_path_rates_grow_linearly_unless_uniform():
    assert drop_path_rates(0.3, 4, uniform=False) == pytest.approx(np.linspace(0, 0.3, 4))
    assert drop_path_rates(0.3, 4, uniform=True) == [0.3] * 4


def test_student_gets_drop_path_and_teacher_does_not():
    student, teacher, dim = build_model_from_cfg(complete_config({"student": {"arch": "vit_tiny_memeff"}}))
    assert dim == 192
    assert {block.sample_drop_ratio for block in student.block_list()} == {0.3}
    assert {block.sample_drop_ratio for block in teacher.block_list()} == {0.0}


def test_attention_backend_reaches_every_block(monkeypatch):
    monkeypatch.setattr("dinov2.models.build.find_spec", lambda name: object())
    student, teacher, _ = build_model_from_cfg(
        complete_config({"student": {"arch": "vit_tiny", "attention_backend": "xformers"}})
    )
    assert {block.attn.backend for model in (student, teacher) for block in model.block_list()} == {"xformers"}


def test_unknown_names_are_answered_with_known_ones():
    with pytest.raises(UserError, match="did you mean vit_small"):
        build_model_from_cfg(complete_config({"student": {"arch": "vit_smal"}}))
    with pytest.raises(UserError, match="swiglu"):
        vit_tiny(ffn_layer="swiglo")
