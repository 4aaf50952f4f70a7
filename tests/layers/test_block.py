"""A block on several groups equals the block on each; stochastic depth keeps the expectation."""

import pytest
import torch

from dinov2.layers import Attention, Block, DINOHead, DropPath, PatchEmbed, SwiGLUFFNFused
from dinov2.layers.drop_path import residual_on_subset


def make_block(**kwargs) -> Block:
    torch.manual_seed(0)
    return Block(32, 4, init_values=0.5, qkv_bias=True, **kwargs)


def test_groups_do_not_see_each_other():
    block = make_block().eval()
    groups = [torch.randn(3, 7, 32), torch.randn(5, 4, 32)]
    together = block(list(groups))
    for group, output in zip(groups, together, strict=True):
        assert torch.allclose(block(group), output, atol=1e-6)
        assert torch.allclose(block(group[:1]), output[:1], atol=1e-6)


def test_attention_equals_naive_loop():
    torch.manual_seed(0)
    attention = Attention(12, num_heads=3, qkv_bias=True)
    x = torch.randn(2, 5, 12)
    expected = torch.zeros(2, 5, 12)
    for image in range(2):
        q, k, v = attention.qkv(x[image]).split(12, dim=-1)  # (5, 12) each
        for head in range(3):
            part = slice(4 * head, 4 * head + 4)
            weights = torch.softmax(q[:, part] @ k[:, part].T / 4**0.5, dim=-1)
            expected[image, :, part] = weights @ v[:, part]
    assert torch.allclose(attention(x), attention.proj(expected), atol=1e-6)


def test_xformers_kernel_gets_its_layout(monkeypatch):
    import sys
    import types

    def fake(query, key, value, p):
        assert query.shape == (2, 5, 3, 4)  # (B, N, H, d)
        out = torch.nn.functional.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (query, key, value)))
        return out.transpose(1, 2)

    ops = types.SimpleNamespace(memory_efficient_attention=fake)
    monkeypatch.setitem(sys.modules, "xformers", types.SimpleNamespace(ops=ops))
    monkeypatch.setitem(sys.modules, "xformers.ops", ops)
    attention, x = Attention(12, num_heads=3), torch.randn(2, 5, 12)
    expected = attention(x)
    attention.backend = "xformers"
    assert torch.allclose(attention(x), expected, atol=1e-6)


@pytest.mark.parametrize(("batch", "ratio", "kept"), [(128, 0.3, 89), (16, 0.4, 9), (4, 0.3, 2), (1, 0.3, 1)])
def test_subset_size_and_scale(batch, ratio, kept):
    x = torch.zeros(batch, 3, 2)
    (output,) = residual_on_subset([x], lambda tokens, shapes: torch.ones_like(tokens), ratio)
    changed = output[output != 0]
    assert len(changed) == kept * 6
    assert torch.allclose(changed, torch.tensor(batch / kept))


def test_subsets_differ_between_groups_and_branches():
    block = make_block(drop_path=0.5).train()
    groups = [torch.randn(8, 3, 32), torch.randn(8, 3, 32)]
    torch.manual_seed(1)
    outputs = block([group.clone() for group in groups])
    untouched = [(output == group).all(dim=(1, 2)) for output, group in zip(outputs, groups, strict=True)]
    assert [int(rows.sum()) for rows in untouched] != [4, 4]  # one branch alone would leave 4 of 8


def test_small_rates_mask_a_lone_tensor():
    block = make_block(drop_path=0.1).train()
    x = torch.randn(1, 3, 32)
    torch.manual_seed(3)
    outcomes = {bool((block(x) == x).all()) for _ in range(300)}
    assert outcomes == {True, False}  # a subset of one image is never dropped


def test_drop_path_keeps_the_mean():
    drop = DropPath(0.25).train()
    torch.manual_seed(0)
    output = drop(torch.ones(20_000, 1, 1))
    assert output.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(output.mean()) == pytest.approx(1.0, abs=0.02)
    assert torch.equal(drop.eval()(output), output)


@pytest.mark.parametrize(
    ("dim", "hidden"), [(192, 512), (384, 1024), (768, 2048), (1024, 2736), (1280, 3416), (1536, 4096)]
)
def test_swiglu_width(dim, hidden):
    assert SwiGLUFFNFused(dim, 4 * dim).w3.weight.shape == (dim, hidden)


def test_head_starts_as_the_reference_does():
    torch.manual_seed(0)
    head = DINOHead(16, 4096, hidden_dim=32, bottleneck_dim=256)
    assert float(head.mlp[0].weight.detach().abs().max()) < 0.2
    assert float(head.mlp[0].weight.detach().std()) == pytest.approx(0.02, rel=0.2)
    assert float(head.last_layer.weight_v.detach().std()) == pytest.approx(1 / 16 / 3**0.5, rel=0.02)
    assert torch.equal(head.last_layer.weight_g, torch.ones(4096, 1))
    rows = head.last_layer(torch.eye(256)).T  # effective weight (K, bottleneck)
    assert torch.allclose(rows.norm(dim=1), torch.ones(4096), atol=1e-5)


@pytest.mark.parametrize(("nlayers", "keys"), [(1, ["mlp.weight", "mlp.bias"]), (2, ["mlp.0.weight", "mlp.2.weight"])])
def test_head_depths(nlayers, keys):
    names = set(DINOHead(8, 16, nlayers=nlayers, hidden_dim=8, bottleneck_dim=4).state_dict())
    assert set(keys) <= names


def test_patch_embed_names_the_side_that_does_not_fit():
    embed = PatchEmbed(img_size=28, patch_size=14, embed_dim=8)
    with pytest.raises(ValueError, match=r"height 30 is not a multiple of patch height 14"):
        embed(torch.zeros(1, 3, 30, 28))
    image = torch.arange(28 * 14, dtype=torch.float32).view(1, 1, 28, 14).expand(1, 3, -1, -1)
    assert torch.allclose(embed(image)[0, 1], embed.proj(image[:, :, 14:])[0, :, 0, 0], atol=1e-4)
