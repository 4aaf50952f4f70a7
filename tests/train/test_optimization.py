"""Clipping and scaling, with gradients that may be sharded."""

from typing import Any

import pytest
import torch
from ranks import run_ranks
from steps import batches_of_rank, build, state_of, tiny_config
from torch import Tensor
from torch.distributed.tensor import DTensor

from dinov2.distributed import get_global_rank
from dinov2.errors import UserError
from dinov2.fsdp import local_parameters
from dinov2.train.optimization import build_grad_scaler, clip_gradients, gradient_norms, step_optimizer

STRATEGIES = ["NO_SHARD", "SHARD_GRAD_OP"]


def whole(gradient: Tensor) -> Tensor:
    return gradient.full_tensor() if isinstance(gradient, DTensor) else gradient


def clip(cfg: Any, max_norm: float) -> dict[str, tuple[float, float, float]]:
    """For every submodule the norm of its gradient before clipping, by hand and as reported, and after, by hand."""

    def norms_by_hand() -> dict[str, float]:
        return {
            name: float(sum(whole(p.grad).double().square().sum() for p in module.parameters()).sqrt())
            for name, module in model.student.items()
        }

    model = build(cfg)
    model.forward_backward(batches_of_rank(0)[0], 0.05)
    before = norms_by_hand()
    reported = gradient_norms(model, state_of(cfg, model).optimizer)
    clip_gradients(model, reported, max_norm)
    after = norms_by_hand()
    return {name: (before[name], float(reported[f"grad_norm_{name}"]), after[name]) for name in before}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_submodule_is_clipped_by_its_own_whole_norm(strategy):
    cfg = tiny_config(strategy, ibot={"separate_head": True})
    limit = 300.0
    first, second = run_ranks(clip, 2, cfg, limit)
    assert first == second
    assert first.keys() == {"backbone", "dino_head", "ibot_head"}
    for before, reported, after in first.values():
        assert reported == pytest.approx(before, rel=1e-5)
        assert after == pytest.approx(min(before, limit), rel=1e-5)
    assert min(before for before, _, _ in first.values()) < limit < max(before for before, _, _ in first.values())


def test_no_limit_leaves_the_gradient():
    for before, reported, after in clip(tiny_config(), 0.0).values():
        assert reported == pytest.approx(before, rel=1e-5)
        assert after == before


def scaled_steps(cfg: Any) -> tuple[list[bool], list[float]]:
    """A step whose gradient overflows in rank 1's part, and one that does not: whether weights moved, and the scale."""
    model = build(cfg)
    model.fp16_scaler = torch.amp.GradScaler("cpu", init_scale=8.0, growth_interval=1)
    state = state_of(cfg, model)
    moved, scales = [], []
    for step, overflows in enumerate((True, False)):
        before = [parameter.clone() for parameter in local_parameters(model.student)]
        state.optimizer.zero_grad()
        model.forward_backward(batches_of_rank(step)[0], 0.05)
        if overflows and get_global_rank() == 1:
            gradient = model.student["backbone"].norm.weight.grad
            (gradient.to_local() if isinstance(gradient, DTensor) else gradient)[-1] = torch.inf
        clip_gradients(model, gradient_norms(model, state.optimizer), 3.0)
        step_optimizer(model, state.optimizer)
        after = local_parameters(model.student)
        moved.append(not all(torch.equal(*pair) for pair in zip(before, after, strict=True)))
        scales.append(model.fp16_scaler.get_scale())
    return moved, scales


def test_overflow_in_one_slice_is_seen_by_all_ranks():
    assert run_ranks(scaled_steps, 2, tiny_config("FULL_SHARD")) == [([False, True], [4.0, 8.0])] * 2


def scaled_norms(cfg: Any, scale: float) -> dict[str, float]:
    model = build(cfg)
    model.fp16_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    model.forward_backward(batches_of_rank(0)[0], 0.05)
    norms = gradient_norms(model, state_of(cfg, model).optimizer)
    return {name: float(norm) for name, norm in norms.items()}


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_norms_are_those_of_the_unscaled_gradient(strategy):
    once, twice = (run_ranks(scaled_norms, 2, tiny_config(strategy), scale)[0] for scale in (1.0, 1024.0))
    assert once == pytest.approx(twice, rel=1e-6)


@pytest.mark.filterwarnings("ignore:.*CUDA is not available")
def test_a_scaler_is_for_float16_and_one_kind_of_layout(monkeypatch):
    gpu = torch.device("cuda")
    cfg = tiny_config("SHARD_GRAD_OP")
    names = ["backbone", "dino_head"]
    student = cfg.compute_precision.student
    student.backbone.mixed_precision.param_dtype = student.dino_head.mixed_precision.param_dtype = "bf16"
    assert build_grad_scaler(cfg, names, gpu) is None
    student.backbone.mixed_precision.param_dtype = "fp16"
    assert build_grad_scaler(cfg, names, torch.device("cpu")) is None
    assert build_grad_scaler(cfg, names, gpu) is not None
    student.dino_head.sharding_strategy = "NO_SHARD"
    assert build_grad_scaler(cfg, names, gpu) is not None  # one process shards nothing
    monkeypatch.setattr("dinov2.train.optimization.get_global_size", lambda: 2)
    with pytest.raises(UserError, match="cannot serve both kinds"):
        build_grad_scaler(cfg, names, gpu)
