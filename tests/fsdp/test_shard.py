"""What sharding does to a model: slices, names, dtypes, state dicts, evaluation."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from golden import fill, normal
from ranks import run_ranks
from steps import GLOBAL, batches_of_rank, build, state_of, take_steps, tiny_config, train_tiny, whole_weights
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.tensor import DTensor

from dinov2.distributed import get_global_rank
from dinov2.errors import UserError
from dinov2.fsdp import local_parameters
from dinov2.train.agreement import agree
from dinov2.train.export import export_teacher
from dinov2.train.ssl_meta_arch import SSLMetaArch

STRATEGIES = ["NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD"]
PROBE = normal("probe", (2, 3, GLOBAL, GLOBAL))


def describe(cfg: Any) -> tuple[list[str], dict[str, int]]:
    """Names of the state dict, and elements that this rank holds of student and teacher."""
    model = build(cfg)
    sizes = {
        name: sum(p.numel() for p in local_parameters(model.get_submodule(name))) for name in ("student", "teacher")
    }
    return list(model.state_dict()), sizes


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_ranks_hold_slices_under_the_same_names(strategy):
    sections = {"student": {"block_chunks": 2}, "ibot": {"separate_head": True}}
    names, whole = describe(tiny_config(strategy, **sections))
    ranks = run_ranks(describe, 2, tiny_config(strategy, **sections))
    assert [found for found, _ in ranks] == [names, names]
    shares = [sizes["student"] / whole["student"] for _, sizes in ranks]
    assert [sizes["teacher"] / whole["teacher"] for _, sizes in ranks] == shares
    if strategy == "NO_SHARD":
        assert shares == [1.0, 1.0]
    else:
        assert sum(shares) == 1.0
        assert max(shares) < 0.6  # rank 0 has the tokens and positions, single rows


def sliced_during_a_step(cfg: Any) -> list[tuple[bool, bool]]:
    """Whether a block's weights are slices, in student and teacher.

    Returns:
        After an evaluation, at the DINO losses of local and of global crops, and after the backward pass.
    """
    model, found = build(cfg), []

    def note(*_: Any) -> None:
        weights = (network["backbone"].blocks[0].norm1.weight for network in (model.student, model.teacher))
        found.append(tuple(isinstance(weight, DTensor) for weight in weights))

    for network in ("student", "teacher"):
        with model.gathered(network, "backbone"):
            pass
    note()
    model.dino_loss.register_forward_hook(note)
    model.forward_backward(batches_of_rank(0)[0], 0.05)
    note()
    return found


@pytest.mark.parametrize(("strategy", "sliced"), [("SHARD_GRAD_OP", False), ("FULL_SHARD", True)])
def test_when_weights_are_gathered(strategy, sliced):
    """A teacher has no backward pass: with either strategy its weights go when they were used."""
    expected = [(True, True), (sliced, True), (sliced, True), (True, True)]
    assert run_ranks(sliced_during_a_step, 2, tiny_config(strategy)) == [expected] * 2


def gathered_dtypes(cfg: Any) -> dict[str, torch.dtype]:
    """In which dtype a forward pass sees some weights and a block's input; and that of gradients and slices."""
    model = build(cfg)
    backbone, head = model.student["backbone"], model.student["dino_head"]
    block = backbone.blocks[1]
    seen = {}
    for name, module, weight in (
        ("block norm", block.norm1, "weight"),
        ("block matrix", block.mlp.fc1, "weight"),
        ("final norm", backbone.norm, "weight"),
        ("head matrix", head.mlp[0], "weight"),
        ("prototypes", head.last_layer, "weight_v"),
    ):
        module.register_forward_hook(
            lambda module, *_, name=name, weight=weight: seen.update({name: getattr(module, weight).dtype})
        )
    block.register_forward_pre_hook(lambda _, args: seen.update({"residual stream": args[0][0].dtype}))
    model.forward_backward(batches_of_rank(0)[0], 0.05)
    (seen["gradients"],) = {parameter.grad.dtype for parameter in model.student.parameters()}
    (seen["slices"],) = {parameter.dtype for parameter in local_parameters(model.student)}
    return seen


def test_blocks_are_gathered_in_low_precision_and_the_rest_in_float32():
    seen = run_ranks(gathered_dtypes, 2, low_precision("FULL_SHARD"))[0]
    low = {name for name, dtype in seen.items() if dtype == torch.bfloat16}
    assert low == {"block norm", "block matrix", "head matrix"}
    assert {seen[name] for name in seen.keys() - low} == {torch.float32}


def low_precision(strategy: str) -> Any:
    cfg = tiny_config(strategy, dino={"koleo_loss_weight": 0.0}, train={"centering": "sinkhorn_knopp"})
    for network in (cfg.compute_precision.student, cfg.compute_precision.teacher):
        for module in network.values():
            module.mixed_precision.param_dtype = "bf16"
    return cfg


def losses_of_batches(cfg: Any) -> np.ndarray:
    """Losses of eight batches, (8, 3), for weights that low precision rounds, as trained ones."""
    model = SSLMetaArch(cfg).train()
    fill(model.student, "rounded")
    model.prepare_for_distributed_training()
    outputs = [model.forward_backward(batches_of_rank(number)[0], 0.05) for number in range(8)]
    return np.array([list(agree(output, {}).means.values()) for output in outputs])


def test_low_precision_is_as_close_to_float32_as_autocast():
    exact = losses_of_batches(tiny_config(dino={"koleo_loss_weight": 0.0}, train={"centering": "sinkhorn_knopp"}))
    autocast = losses_of_batches(low_precision("NO_SHARD"))
    sharded = run_ranks(losses_of_batches, 2, low_precision("SHARD_GRAD_OP"))[0]
    replicated = run_ranks(losses_of_batches, 2, low_precision("NO_SHARD"))[0]
    errors = [np.sqrt(np.square(losses / exact - 1).mean()) for losses in (autocast, sharded)]
    assert 1e-4 < errors[0] < 2e-3
    assert errors[1] < 1.5 * errors[0]
    assert np.allclose(replicated, autocast, rtol=1e-6)
    assert not np.allclose(sharded, autocast, rtol=1e-6)  # vectors of blocks are rounded too


@pytest.mark.parametrize("reduce_dtype", ["bf16", "fp32"])
@pytest.mark.parametrize("strategy", ["NO_SHARD", "SHARD_GRAD_OP"])
def test_dtype_of_the_reduction(strategy, reduce_dtype):
    """The bits of gradients tell in which dtype they travelled."""
    cfg = tiny_config(strategy)
    for module in cfg.compute_precision.student.values():
        module.mixed_precision.reduce_dtype = reduce_dtype
    share = run_ranks(share_of_short_gradients, 2, cfg)[1]
    assert share == 1.0 if reduce_dtype == "bf16" else share < 0.1


def share_of_short_gradients(cfg: Any) -> float:
    """Which share of this rank's gradients has no more bits than bfloat16."""
    model = build(cfg)
    model.forward_backward(batches_of_rank(0)[0], 0.05)
    gradients = [p.grad.to_local() if isinstance(p.grad, DTensor) else p.grad for p in model.student.parameters()]
    values = torch.cat([gradient.flatten() for gradient in gradients])
    values = values[values != 0]
    return float((values == values.bfloat16().float()).float().mean())


def stop_and_go_on(cfg: Any, steps: int) -> list[dict[str, float]]:
    """Train, carry whole states over to a fresh model, and go on with that."""
    state = state_of(cfg, build(cfg))
    take_steps(cfg, state, steps)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=False)
    weights = {name: torch.from_numpy(array) for name, array in whole_weights(state.model).items()}
    moments = get_optimizer_state_dict(state.model, state.optimizer, options=options)
    fresh = state_of(cfg, build(cfg))
    set_model_state_dict(fresh.model, weights, options=options)
    set_optimizer_state_dict(fresh.model, fresh.optimizer, moments, options=options)
    fresh.iteration = state.iteration
    return take_steps(cfg, fresh, steps)


@pytest.mark.parametrize("strategy", ["NO_SHARD", "FULL_SHARD"])
def test_states_are_whole_and_can_be_loaded(strategy):
    uninterrupted = run_ranks(train_tiny, 2, tiny_config(strategy), 2)[0].figures
    assert run_ranks(stop_and_go_on, 2, tiny_config(strategy), 1)[0] == [pytest.approx(uninterrupted[1], rel=1e-6)]


def export(cfg: Any, folder: Path) -> dict[str, np.ndarray]:
    model = build(cfg)
    export_teacher(model, folder)
    return whole_weights(model)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_exported_teacher_is_whole_and_plain(strategy, tmp_path):
    weights = run_ranks(export, 2, tiny_config(strategy), tmp_path)[1]
    exported = torch.load(tmp_path / "teacher_checkpoint.pth", weights_only=True)["teacher"]
    expected = {name.removeprefix("teacher."): value for name, value in weights.items() if name.startswith("teacher.")}
    assert exported.keys() == expected.keys()
    assert all(np.array_equal(exported[name].numpy(), value) for name, value in expected.items())


def evaluate_and_train(cfg: Any, evaluations: tuple[int, int]) -> tuple[list[np.ndarray], list[dict[str, float]]]:
    """Features by both backbones before and after two steps, computed a different number of times on each rank."""
    state, features = state_of(cfg, build(cfg)), []
    figures = []
    for _ in range(2):
        for network in ("teacher", "student"):
            with state.model.gathered(network, "backbone"), torch.inference_mode():
                for _ in range(evaluations[get_global_rank()]):
                    found = state.model.get_submodule(f"{network}.backbone")(PROBE)
            features.append(found.numpy().copy())
        figures += take_steps(cfg, state, 1)
    return features, figures


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_evaluation_with_whole_weights(strategy):
    """Ranks may have one batch more than others, and training goes on as if nothing had happened."""
    expected = run_ranks(train_tiny, 2, tiny_config(strategy), 2)[0].figures
    (first, figures), (second, _) = run_ranks(evaluate_and_train, 2, tiny_config(strategy), (2, 1))
    alone, _ = evaluate_and_train(tiny_config(dino={"koleo_loss_weight": 0.0}), (1,))
    assert all(np.array_equal(ours, theirs) for ours, theirs in zip(first, second, strict=True))
    assert np.allclose(first[0], alone[0], atol=1e-6)
    assert not np.allclose(first[2], first[0], atol=1e-6)  # the moving average has moved
    for ours, theirs in zip(figures, expected, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)


def test_a_teacher_cannot_be_sharded_in_another_way_than_the_student():
    cfg = tiny_config("FULL_SHARD")
    cfg.compute_precision.student.dino_head.sharding_strategy = "NO_SHARD"
    with pytest.raises(UserError, match=r"dino_head.sharding_strategy is NO_SHARD for the student and FULL_SHARD"):
        SSLMetaArch(cfg)
    cfg.compute_precision.student.dino_head.sharding_strategy = "SHARD_GRAD_OP"
    SSLMetaArch(cfg)
