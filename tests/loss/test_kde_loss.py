"""KDE against a loop, in half precision, and for tokens that have come together."""

import math

import pytest
import torch
import torch.nn.functional as F

from dinov2.loss import KDELoss


@pytest.mark.parametrize("concentration", [1.0, 5.0, 20.0])
def test_against_a_loop(concentration):
    tokens = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    unit = F.normalize(tokens.double(), dim=1)
    logs = []
    for i in range(7):
        kernel = [math.exp(concentration * float(unit[i] @ unit[j])) for j in range(7) if j != i]
        logs.append(math.log(sum(kernel) / 6))
    assert float(KDELoss(concentration)(tokens)) == pytest.approx(sum(logs) / 7, abs=1e-5)


def test_equal_tokens_in_half_precision_have_finite_gradients():
    tokens = torch.ones(4, 8, dtype=torch.float16, requires_grad=True)
    loss = KDELoss()(tokens)
    loss.backward()
    assert loss.dtype == torch.float32
    assert float(loss.detach()) == pytest.approx(5.0, abs=1e-3)  # every cosine is 1
    assert tokens.grad.isfinite().all()


def test_a_step_against_the_gradient_spreads_tokens():
    tokens = torch.ones(6, 4) + 0.1 * torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    before = _mean_cosine(tokens)
    for _ in range(20):
        tokens.requires_grad_()
        (gradient,) = torch.autograd.grad(KDELoss()(tokens), tokens)
        tokens = (tokens - 0.3 * gradient).detach()
    assert before > 0.98
    assert _mean_cosine(tokens) < 0.5


def test_one_token_has_no_density():
    tokens = torch.ones(1, 4, requires_grad=True)
    loss = KDELoss()(tokens)
    loss.backward()
    assert float(loss.detach()) == 0.0
    assert torch.equal(tokens.grad, torch.zeros(1, 4))


def _mean_cosine(tokens: torch.Tensor) -> float:
    unit = F.normalize(tokens, dim=1)
    cosines = unit @ unit.T
    return float((cosines.sum() - len(tokens)) / (len(tokens) * (len(tokens) - 1)))
