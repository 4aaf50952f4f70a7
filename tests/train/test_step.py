"""Micro-batches: how they are grouped, and whose mean their gradient is."""

import json
from itertools import count, islice

import pytest
import torch
from omegaconf import OmegaConf
from ranks import run_ranks
from runs import metrics_of, train
from steps import batches_of_rank, build, state_of, take_steps, tiny_config
from torch.distributed.tensor import DTensor

from dinov2.train.outputs import StepOutput
from dinov2.train.step import accumulate_gradients, micro_batches


def test_batches_are_grouped_in_their_order():
    assert list(islice(micro_batches(count(), 3), 2)) == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
def test_gradient_is_the_mean_of_those_of_the_micro_batches(centering):
    cfg = tiny_config(train={"centering": centering})
    batches = batches_of_rank(0, parts=3, masked=lambda image: image + 1)
    together, apart = build(cfg), build(cfg)
    output = StepOutput.mean(accumulate_gradients(together, batches, 0.05))
    outputs, gradients = [], []
    for batch in batches:
        apart.zero_grad()
        outputs.append(apart.forward_backward(batch, 0.05))
        gradients.append([parameter.grad.clone() for parameter in apart.student.parameters()])
    for name, loss in output.items():
        assert float(loss) == pytest.approx(sum(float(part[name]) for part in outputs) / 3)
    assert float(output.objective) == pytest.approx(sum(float(part.objective) for part in outputs) / 3)
    for parameter, parts in zip(together.student.parameters(), zip(*gradients, strict=True), strict=True):
        mean = torch.stack(parts).mean(dim=0)
        assert float((parameter.grad - mean).abs().max()) <= 1e-5 * float(mean.abs().max())


def test_a_step_counts_once_and_reports_all_its_tiles():
    cfg = tiny_config()
    state = state_of(cfg, build(cfg))
    figures = take_steps(cfg, state, 2, parts=3)
    assert [line["current_batch_size"] for line in figures] == [12.0, 12.0]
    (steps,) = {float(moments["step"]) for moments in state.optimizer.state.values()}
    assert steps == 2


def test_a_batch_is_all_micro_batches_for_a_run(image_folder, tmp_path):
    options = ("train.gradient_accumulation_factor=2", "train.OFFICIAL_EPOCH_LENGTH=null", "optim.max_iter=2")
    train(image_folder, tmp_path, *options, "optim.warmup_pct=0", "optim.freeze_last_layer_pct=0")
    assert [line["current_batch_size"] for line in metrics_of(tmp_path)] == [8.0, 8.0]
    assert json.loads((tmp_path / "timeline.json").read_text())["epoch_length"] == 24 // 8
    assert OmegaConf.load(tmp_path / "config.yaml").optim.lr == pytest.approx(0.004 * (8 / 1024) ** 0.5)


def gradients_of_two_micro_batches(strategy: str) -> tuple[list[float] | None, list[float]]:
    """One gradient of this rank after each of two micro-batches; None where there is none to see."""
    model = build(tiny_config(strategy))
    with model.gradient_sync(False):
        model.forward_backward(batches_of_rank(0)[0], 0.05, share=0.5)
    parameter = model.student["backbone"].norm.bias
    early = parameter.grad
    with model.gradient_sync(True):
        model.forward_backward(batches_of_rank(1)[0], 0.05, share=0.5)
    late = parameter.grad.full_tensor() if isinstance(parameter.grad, DTensor) else parameter.grad
    return None if early is None else early.tolist(), late.tolist()


@pytest.mark.parametrize("strategy", ["NO_SHARD", "FULL_SHARD"])
def test_only_the_last_micro_batch_averages_over_ranks(strategy):
    (first_early, first_late), (second_early, second_late) = run_ranks(gradients_of_two_micro_batches, 2, strategy)
    assert first_late == second_late
    if strategy == "NO_SHARD":
        assert first_early != second_early
    else:
        assert first_early is None
        assert second_early is None
