"""Losses against naive loops and at their edges."""

import math

import pytest
import torch

from dinov2.loss import DINOLoss, KoLeoLoss, iBOTPatchLoss
from dinov2.loss.sinkhorn import sinkhorn_knopp


def det(shape, f, phase=0.0):
    n = torch.arange(math.prod(shape), dtype=torch.float64)
    return torch.sin(n * f + phase).float().view(shape)


def test_dino_loss_is_the_sum_over_pairs():
    torch.manual_seed(0)
    student, teacher = torch.randn(3, 5, 11), torch.softmax(torch.randn(2, 5, 11), dim=-1)
    expected = 0.0
    for scores in student:
        for targets in teacher:
            for row in range(5):
                expected -= float((targets[row] * torch.log_softmax(scores[row] / 0.1, dim=-1)).sum()) / 5
    assert float(DINOLoss(11)(list(student), list(teacher))) == pytest.approx(expected, rel=1e-5)


def test_reference_values():
    teacher, student, flat = det((6, 8), 0.7), det((12, 8), 1.3, 0.2), det((6, 8), 0.9, 0.5)
    loss = DINOLoss(8)
    targets = loss.softmax_center_teacher(teacher, 0.04)
    assert float(loss(student.chunk(4), targets.view(2, 3, 8))) == pytest.approx(71.470619, rel=1e-5)
    assert float(loss([flat], [targets])) == pytest.approx(11.001355, rel=1e-5)
    columns = loss.sinkhorn_knopp_teacher(teacher, 0.07).sum(0)
    expected = [0.5683854, 0.4963765, 0.511515, 0.8903204, 0.9954054, 1.0064727, 0.8903281, 0.6411964]
    assert columns.tolist() == pytest.approx(expected, rel=1e-5)


def test_ibot_reference_values():
    masks = torch.zeros(4, 6, dtype=torch.bool)
    masks[0, :3] = masks[2, 1:6] = True
    loss, targets, scores = iBOTPatchLoss(8), torch.softmax(det((8, 8), 0.37) / 0.05, dim=-1), det((10, 8), 0.51, 0.1)
    assert float(loss.forward_masked(scores[:8], targets, masks)) == pytest.approx(5.151379, rel=1e-5)


def test_ibot_ignores_padding_rows():
    masks = torch.zeros(4, 6, dtype=torch.bool)
    masks[0, :3] = masks[2, 1:6] = True
    torch.manual_seed(0)
    scores, targets = torch.randn(12, 8), torch.softmax(torch.randn(12, 8), dim=-1)
    loss = iBOTPatchLoss(8)
    exact = loss.forward_masked(scores[:8], targets[:8], masks)
    assert torch.equal(loss.forward_masked(scores, targets, masks, n_masked_patches=8), exact)


def test_masked_and_dense_ibot_agree():
    torch.manual_seed(0)
    masks = torch.rand(4, 6) > 0.5
    masks[1] = False
    scores, targets = torch.randn(4, 6, 8), torch.softmax(torch.randn(4, 6, 8), dim=-1)
    loss = iBOTPatchLoss(8)
    assert float(loss.forward_masked(scores[masks], targets[masks], masks)) == pytest.approx(
        float(loss(scores, targets, masks)), rel=1e-5
    )


def test_sinkhorn_balances_and_survives_large_scores():
    torch.manual_seed(0)
    scores = torch.randn(64, 16)
    plan = sinkhorn_knopp(scores, temp=0.07, num_rows=64, n_iterations=100)
    assert torch.allclose(plan.sum(1), torch.ones(64), atol=1e-4)
    assert torch.allclose(plan.sum(0), torch.full((16,), 4.0), rtol=1e-2)
    large = sinkhorn_knopp(scores * 100, temp=0.04, num_rows=64)
    assert bool(large.isfinite().all())
    shifted = sinkhorn_knopp(scores + 3, temp=0.07, num_rows=64)
    assert torch.allclose(shifted, sinkhorn_knopp(scores, temp=0.07, num_rows=64), rtol=1e-3, atol=1e-6)


def test_koleo_against_a_loop():
    torch.manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(7, 5), dim=-1)
    expected = 0.0
    for i in range(7):
        nearest = max((j for j in range(7) if j != i), key=lambda j: float(tokens[i] @ tokens[j]))
        expected -= math.log(float((tokens[i] - tokens[nearest] + 1e-8).norm()) + 1e-8) / 7
    assert float(KoLeoLoss()(tokens)) == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_koleo_is_finite_for_equal_tokens_and_zero_for_one(dtype):
    tokens = det((6, 5), 0.77).to(dtype)
    tokens[1] = tokens[0]
    assert float(KoLeoLoss()(tokens)) == pytest.approx(5.84, abs=0.05)
    alone = tokens[:1].clone().requires_grad_()
    value = KoLeoLoss()(alone)
    value.backward()
    assert float(value.detach()) == 0.0
    assert torch.equal(alone.grad, torch.zeros_like(alone))


def test_center_stays_without_masked_patches():
    loss = iBOTPatchLoss(8)
    loss.update_center(det((1, 5, 8), 0.3))
    before = loss.center.clone()
    loss.update_center(torch.zeros(1, 0, 8))
    assert torch.equal(loss.center, before)
    assert bool((before != 0).any())
