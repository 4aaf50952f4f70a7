"""Losses, targets and the head reproduce the reference's figures."""

import pytest
import torch
from golden import assert_close, fill, load_figures, load_json, normal

from dinov2.layers import DINOHead
from dinov2.loss import DINOLoss, KoLeoLoss, iBOTPatchLoss

K = 96
TEMP = 0.05


@pytest.fixture(scope="module")
def figures():
    return load_figures("losses")


@pytest.fixture(scope="module")
def masks():
    return normal("losses:masks", (8, 16)) > 0.7


def test_dino_centering_lags_one_step(figures):
    loss, scores = DINOLoss(K), normal("losses:teacher_cls", (8, K))
    assert_close(loss.softmax_center_teacher(scores, TEMP), figures["dino_softmax_center_first"], 1e-5)
    loss.update_center(scores)
    assert_close(loss.softmax_center_teacher(scores, TEMP), figures["dino_softmax_center_second"], 1e-5)
    assert_close(loss.center, figures["dino_center_after_one"], 1e-5)


def test_dino_sinkhorn_and_cross_entropy(figures):
    loss = DINOLoss(K)
    targets = loss.sinkhorn_knopp_teacher(normal("losses:teacher_cls", (8, K)), TEMP)
    assert_close(targets, figures["dino_sinkhorn"], 1e-5)
    student = normal("losses:student_cls", (16, K))
    assert_close(loss(student.chunk(4), targets.view(2, -1, K)), figures["dino_loss_2x2"], 1e-5)


def test_ibot_centering(figures, masks):
    loss, scores = iBOTPatchLoss(K), normal("losses:teacher_patch", (int(masks.sum()), K))[None]
    assert_close(loss.softmax_center_teacher(scores, TEMP), figures["ibot_softmax_center_first"], 1e-5)
    loss.update_center(scores)
    assert_close(loss.softmax_center_teacher(scores, TEMP), figures["ibot_softmax_center_second"], 1e-5)
    assert_close(loss.center, figures["ibot_center_after_one"], 1e-5)


def test_ibot_sinkhorn_and_cross_entropy(figures, masks):
    loss, count = iBOTPatchLoss(K), int(masks.sum())
    targets = loss.sinkhorn_knopp_teacher(normal("losses:teacher_patch", (count, K)), TEMP, torch.tensor([count]))
    assert_close(targets, figures["ibot_sinkhorn"], 1e-5)
    student = normal("losses:student_patch", (count, K))
    assert_close(loss.forward_masked(student, targets, masks), figures["ibot_loss_masked"], 1e-5)


def test_koleo_value_and_gradient(figures):
    tokens = normal("losses:koleo", (12, 32)).requires_grad_()
    value = KoLeoLoss()(tokens)
    value.backward()
    assert_close(value, figures["koleo"], 1e-5)
    assert_close(tokens.grad, figures["koleo_grad"], 1e-5)


def test_head(figures):
    head = DINOHead(48, K, hidden_dim=64, bottleneck_dim=24)
    assert {k: list(v.shape) for k, v in head.state_dict().items()} == load_json("dino_head.keys")
    fill(head, "losses:head")
    assert_close(head(normal("losses:head_input", (5, 48))), figures["dino_head"], 1e-5)
