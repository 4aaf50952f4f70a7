"""Layer norm whose weights were rounded."""

import pytest
import torch
import torch.nn.functional as F

from dinov2.layers import LayerNorm


@pytest.mark.parametrize("weights", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("tokens", [torch.float32, torch.bfloat16])
def test_computes_in_float32_and_keeps_the_dtype_of_its_input(weights, tokens):
    torch.manual_seed(0)
    norm = LayerNorm(16, eps=1e-6).to(weights)
    torch.nn.init.normal_(norm.weight)
    torch.nn.init.normal_(norm.bias)
    x = torch.randn(3, 16).to(tokens)
    expected = F.layer_norm(x.double(), (16,), norm.weight.double(), norm.bias.double(), eps=1e-6)
    found = norm(x)
    assert found.dtype == tokens
    assert torch.allclose(found.double(), expected, rtol=1e-2 if tokens == torch.bfloat16 else 1e-5, atol=1e-5)
