"""NaN and infinity in losses, gradients and tiles: found on all ranks, nothing changed, written down."""

import json
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from ranks import run_ranks
from runs import train
from steps import batches_of_rank, build, state_of, tiny_config
from torch import Tensor
from torch.distributed.tensor import DTensor

from dinov2.data.permutation import Permutation
from dinov2.data.training_view import TrainingView
from dinov2.distributed import describe_last_collective, get_global_rank, get_global_size
from dinov2.train import loop as loop_module
from dinov2.train import step as step_module
from dinov2.train.checkpoint import Checkpointer, SavedCheckpoint
from dinov2.train.evidence import describe_tiles
from dinov2.train.guards import LOWEST_LOSS_SCALE, NonFiniteError, NonFiniteGuard
from dinov2.train.outputs import StepOutput, StepReport
from dinov2.train.schedules import ScheduleValues
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.step import train_step
from dinov2.utils.rng import Draw

VALUES = ScheduleValues(lr=1e-3, last_layer_lr=1e-3, weight_decay=0.04, momentum=0.9, teacher_temp=0.05)

# How a step of this rank is poisoned: a context in which it is taken.
Poison = Callable[[Any, list[dict], float], Any]


@contextmanager
def in_shown_loss(state: Any, batches: list[dict], value: float) -> Iterator[None]:
    """A loss that is only shown, so that no gradient tells of it."""
    losses = state.model.losses

    def poisoned(*args: Any) -> StepOutput:
        output = losses(*args)
        return replace(output, losses={**output.losses, "ibot_loss": output["ibot_loss"] * value})

    with mock.patch.object(state.model, "losses", poisoned):
        yield


@contextmanager
def in_objective(state: Any, batches: list[dict], value: float) -> Iterator[None]:
    losses = state.model.losses

    def poisoned(*args: Any) -> StepOutput:
        output = losses(*args)
        return replace(output, objective=output.objective * value)

    with mock.patch.object(state.model, "losses", poisoned):
        yield


@contextmanager
def in_gradient_of_activations(state: Any, batches: list[dict], value: float) -> Iterator[None]:
    """The losses are right, and a number in the backward pass is not."""

    def poison(module: Any, inputs: Any, output: Tensor) -> None:
        if output.requires_grad:
            output.register_hook(lambda gradient: gradient.index_fill(0, torch.tensor([0]), value))

    handle = state.model.student["backbone"].block_list()[1].norm2.register_forward_hook(poison)
    yield
    handle.remove()


@contextmanager
def in_one_parameter(state: Any, batches: list[dict], value: float) -> Iterator[None]:
    """One number of one gradient after it was averaged, on this rank only."""
    original = step_module.accumulate_gradients

    def poisoned(*args: Any, **options: Any) -> list[StepOutput]:
        outputs = original(*args, **options)
        gradient = state.model.student["dino_head"].mlp[0].bias.grad
        (gradient.to_local() if isinstance(gradient, DTensor) else gradient)[-1] = value
        return outputs

    with mock.patch.object(step_module, "accumulate_gradients", poisoned):
        yield


@contextmanager
def in_one_tile(state: Any, batches: list[dict], value: float) -> Iterator[None]:
    """One pixel of the second global crop of the second image."""
    batches[0]["collated_global_crops"][3, 0, 5, 5] = value
    yield


POISONS: dict[str, Poison] = {
    "shown loss": in_shown_loss,
    "objective": in_objective,
    "gradient of activations": in_gradient_of_activations,
    "one parameter": in_one_parameter,
    "one tile": in_one_tile,
}


def batches_of(state: Any, **options: Any) -> list[dict]:
    """This rank's batches, of two images each, that know their tiles."""
    batches = batches_of_rank(state.iteration, images=2 * get_global_size(), **options)
    for part, batch in enumerate(batches):
        batch["tiles"] = torch.arange(2) + 100 * part + 10 * get_global_rank()
    return batches


def frozen_state(state: Any) -> dict[str, Tensor]:
    """Copies of this rank's weights, centres and moments."""
    tensors = dict(state.model.state_dict())
    for number, moments in enumerate(state.optimizer.state.values()):
        tensors.update({f"moment {number} {name}": value for name, value in moments.items()})
    return {
        name: (value.to_local() if isinstance(value, DTensor) else value).clone() for name, value in tensors.items()
    }


def equal(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def go_on(cfg: Any, state: Any, batches: list[dict]) -> StepReport:
    report = train_step(cfg, state, batches, VALUES)
    state.iteration += 1
    return report


def poisoned_steps(cfg: Any, poisoned_rank: int) -> tuple[list[tuple], list[np.ndarray]]:
    """A good step, one of every poison, and a good step.

    Returns:
        For every poisoned step its name, whether the state stayed the same, the figures left, and the count; and
        the weights at the end.
    """
    state, found = state_of(cfg, build(cfg)), []
    go_on(cfg, state, batches_of(state))
    for name, poison in POISONS.items():
        for value in (math.nan, -math.inf):
            before, batches = frozen_state(state), batches_of(state)
            with poison(state, batches, value) if get_global_rank() == poisoned_rank else nullcontext():
                report = go_on(cfg, state, batches)
            same = equal(before, frozen_state(state))
            found.append((name, same, sorted(report.figures), report.latest["nonfinite_steps"]))
    go_on(cfg, state, batches_of(state))
    return found, [value.numpy() for value in frozen_state(state).values()]


def only_good_steps(cfg: Any) -> list[np.ndarray]:
    """What the steps of `poisoned_steps` that are not poisoned lead to."""
    state = state_of(cfg, build(cfg))
    for iteration in (0, 2 * len(POISONS) + 1):
        state.iteration = iteration
        go_on(cfg, state, batches_of(state))
    return [value.numpy() for value in frozen_state(state).values()]


def configuration(output: Path, strategy: str = "NO_SHARD", **train: Any) -> Any:
    settings = {"on_nonfinite": "skip", "max_nonfinite_steps": 11, "indicators_every": 1, "output_dir": str(output)}
    return tiny_config(strategy, train={"centering": "centering", **settings, **train})


def evidence(output: Path) -> list[dict]:
    """All files, ascending; what is not strict JSON fails."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    files = sorted((output / "results").glob("nonfinite_*.json"))
    return [json.loads(file.read_text(), parse_constant=refuse) for file in files]


@pytest.mark.parametrize("strategy", ["NO_SHARD", "FULL_SHARD"])
def test_a_poisoned_step_leaves_no_trace_on_any_rank(strategy, tmp_path):
    cfg = configuration(tmp_path, strategy)
    poisoned = run_ranks(poisoned_steps, 2, cfg, 1)
    assert [step[0] for step in poisoned[0][0]] == [name for name in POISONS for _ in range(2)]
    for found, weights in poisoned:
        assert all(same for _, same, _, _ in found)
        assert [count for *_, count in found] == list(range(1, 11))
        kept = ["current_batch_size", "last_layer_lr", "lr", "mom", "teacher_temp", "wd"]
        assert all(names == kept for _, _, names, _ in found)
        assert all(np.isfinite(weight).all() for weight in weights)
    for (_, ours), theirs in zip(poisoned, run_ranks(only_good_steps, 2, cfg), strict=True):
        assert all(np.array_equal(*pair) for pair in zip(ours, theirs, strict=True))
    check_evidence(evidence(tmp_path), sharded=strategy != "NO_SHARD")


def check_evidence(files: list[dict], *, sharded: bool) -> None:
    """Files of `poisoned_steps` with poison on rank 1."""
    by_poison = dict(zip([name for name in POISONS for _ in range(2)], files, strict=True))  # the second of each
    for file in files:
        assert [rank["rank"] for rank in file["ranks"]] == [0, 1]
        assert file["policy"] == "skip"
        assert file["schedules"]["lr"] == 1e-3
        assert file["schedules"]["teacher_temp"] == 0.05
    assert [file["iteration"] for file in files] == list(range(1, 11))
    shown = by_poison["shown loss"]
    assert shown["means"]["ibot_loss"] == "-inf"
    assert isinstance(shown["means"]["loss_total_optimized"], float)
    assert [rank["parameters_with_nonfinite_gradient"] for rank in shown["ranks"]] == [0, 0]
    assert [[tile["tile"] for tile in rank["batches"][0]["tiles"]] for rank in shown["ranks"]] == [[], [10, 11]]
    activations = by_poison["gradient of activations"]
    assert activations["ranks"][0]["first_of_them"][0] == "backbone.cls_token"
    assert all(rank["last_of_them"][-1].startswith("backbone.blocks.1.") for rank in activations["ranks"])
    # No loss tells which rank it was.
    assert [len(rank["batches"][0]["tiles"]) for rank in activations["ranks"]] == [2, 2]
    parameter = by_poison["one parameter"]
    assert [rank["first_of_them"] for rank in parameter["ranks"]] == [[], ["dino_head.mlp.0.bias"]]
    assert parameter["means"]["grad_norm_dino_head"] == "inf"
    if not sharded:
        assert isinstance(parameter["ranks"][0]["grad_norms"]["grad_norm_dino_head"], float)
    tile = by_poison["one tile"]
    assert not tile["ranks"][0]["batches"][0]["tiles"]
    named = tile["ranks"][1]["batches"][0]["tiles"]
    assert [(entry["name"], entry["nonfinite"]) for entry in named] == [("tile 10", 0), ("tile 11", 1)]


@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
def test_one_of_several_micro_batches(centering, tmp_path):
    cfg = configuration(tmp_path, centering=centering)
    state = state_of(cfg, build(cfg))
    go_on(cfg, state, batches_of(state, parts=3))
    before, batches = frozen_state(state), batches_of(state, parts=3)
    batches[1]["collated_local_crops"][0] = math.nan
    assert go_on(cfg, state, batches).latest == {"nonfinite_steps": 1.0}
    assert equal(before, frozen_state(state))
    (rank,) = evidence(tmp_path)[0]["ranks"]
    named = [[tile["name"] for tile in batch["tiles"]] for batch in rank["batches"]]
    assert named == [[], ["tile 100", "tile 101"], []]


def test_nothing_is_clipped_before_the_check(tmp_path, monkeypatch):
    cfg = configuration(tmp_path)
    state = state_of(cfg, build(cfg))
    monkeypatch.setattr(step_module, "clip_gradients", mock.Mock(side_effect=AssertionError))
    with in_one_parameter(state, [], math.nan):
        go_on(cfg, state, batches_of(state))
    with pytest.raises(AssertionError):
        go_on(cfg, state, batches_of(state))


def test_by_default_the_run_stops_with_advice(tmp_path):
    cfg = configuration(tmp_path, on_nonfinite="stop")
    state = state_of(cfg, build(cfg))
    before, batches = frozen_state(state), batches_of(state)
    batches[0]["collated_global_crops"][0] = math.inf
    with pytest.raises(NonFiniteError, match=r"iteration 0: total_loss = nan.*nonfinite_0000000\.json.*on_nonfinite=s"):
        go_on(cfg, state, batches)
    assert equal(before, frozen_state(state))


def test_a_good_step_ends_a_row_and_a_long_row_stops_the_run(tmp_path, caplog):
    guard = NonFiniteGuard("skip", 3, tmp_path)
    attempt = mock.Mock(iteration=5)
    with mock.patch("dinov2.train.guards.write_evidence", return_value=None), caplog.at_level(logging.WARNING):
        for _ in range(2):
            guard.refuse(attempt, {"ibot_loss": math.nan})
        guard.accept()
        for _ in range(2):
            guard.refuse(attempt, {"ibot_loss": math.nan})
        resumed = NonFiniteGuard("skip", 3, tmp_path)
        resumed.load_state_dict(guard.state_dict())
        with pytest.raises(NonFiniteError, match=r"ibot_loss = nan\. 3 in a row, as train\.max_nonfinite_steps"):
            resumed.refuse(attempt, {"ibot_loss": math.nan})
    assert len(caplog.messages) == 4
    assert "left out: 2 in a row, 4 in this run" in caplog.messages[-1]


def full_disk(cfg: Any) -> str:
    """What is raised where rank 0 cannot write."""
    state = state_of(cfg, build(cfg))
    batches = batches_of(state)
    batches[0]["collated_global_crops"][0] = math.nan
    with mock.patch("dinov2.train.evidence.write_text", side_effect=OSError(28, "No space left on device")):
        try:
            go_on(cfg, state, batches)
        except NonFiniteError as error:
            return str(error)
    return ""


def test_evidence_that_cannot_be_written_hides_nothing(tmp_path):
    messages = run_ranks(full_disk, 2, configuration(tmp_path, on_nonfinite="stop"))
    assert all("total_loss = nan" in message and "last checkpoint is good" in message for message in messages)


def test_tiles_are_described():
    batch = batches_of_rank(0, images=2)[0]
    for name in ("collated_global_crops", "collated_local_crops"):
        batch[name] = batch[name].half()
    batch["collated_global_crops"][2:] = 0.5  # the second crop of both images
    batch["collated_global_crops"][1, 0, 0, :2] = torch.tensor([math.nan, math.inf])
    found = describe_tiles(batch, str)
    for image, row in enumerate(found):
        numbers = torch.cat([batch[f"collated_{kind}_crops"][image::2].flatten() for kind in ("global", "local")])
        finite = numbers[numbers.isfinite()].double()
        assert row["nonfinite"] == 2 * image == len(numbers) - len(finite)
        assert (row["min"], row["max"]) == (float(finite.min()), float(finite.max()))
        assert row["mean"] == pytest.approx(float(finite.mean()), rel=1e-4)
    batch["tiles"] = torch.tensor([7, 3])
    assert [(row["tile"], row["name"]) for row in describe_tiles(batch, "number {}".format)] == [
        (7, "number 7"),
        (3, "number 3"),
    ]


def collectives_of_a_step(cfg: Any) -> int:
    """How many collectives a step has, those of gradients not counted."""

    def count() -> int:
        return int(describe_last_collective().split()[2].rstrip(",").replace(",", ""))

    state = state_of(cfg, build(cfg))
    go_on(cfg, state, batches_of(state))
    before = count()
    assert train_step(cfg, state, batches_of(state), VALUES, counts={"seen": 2 + get_global_rank()}).counts == {
        "seen": 5
    }
    return count() - before


def test_all_figures_and_counts_share_one_reduction(tmp_path):
    cfg = configuration(tmp_path, indicators_every=0)
    assert run_ranks(collectives_of_a_step, 2, cfg) == [2 + 1] * 2  # two centres


# Loss scales.


def scaled(cfg: Any, scale: float) -> Any:
    model = build(cfg)
    model.fp16_scaler = torch.amp.GradScaler("cpu", init_scale=scale)
    return state_of(cfg, model)


def test_overflow_of_a_scaled_gradient_is_the_scalers_business(tmp_path):
    cfg = configuration(tmp_path)
    state = scaled(cfg, 1e38)
    weights = {name: weight.clone() for name, weight in state.model.student.state_dict().items()}
    report = go_on(cfg, state, batches_of(state))
    assert equal(weights, state.model.student.state_dict())
    assert report.figures["loss_scale"] == pytest.approx(1e38)
    assert all(math.isfinite(value) for value in report.figures.values())
    assert "total_loss" in report.figures
    assert not any(name.startswith("grad_norm") for name in report.figures)
    assert report.latest["nonfinite_steps"] == 0
    assert state.model.fp16_scaler.get_scale() == pytest.approx(5e37)
    assert not evidence(tmp_path)


def test_a_loss_that_is_not_finite_is_not_left_to_the_scaler(tmp_path):
    cfg = configuration(tmp_path)
    state = scaled(cfg, 8.0)
    go_on(cfg, state, batches_of(state))
    before, batches = frozen_state(state), batches_of(state)
    batches[0]["collated_global_crops"][0] = math.nan
    assert go_on(cfg, state, batches).latest == {"nonfinite_steps": 1.0}
    assert equal(before, frozen_state(state))
    assert state.model.fp16_scaler.get_scale() == 8.0
    assert evidence(tmp_path)[0]["means"]["loss_scale"] == 8.0
    assert "grad_norm_backbone" in go_on(cfg, state, batches_of(state)).figures
    assert not equal(before, frozen_state(state))


def test_endless_overflow_stops_the_run(tmp_path):
    cfg = configuration(tmp_path)
    state = scaled(cfg, 4 * LOWEST_LOSS_SCALE)
    with in_gradient_of_activations(state, [], math.inf):
        for _ in range(3):
            go_on(cfg, state, batches_of(state))
        with pytest.raises(NonFiniteError, match=r"iteration 3: the loss scale has fallen to 6\.1\d+e-05"):
            go_on(cfg, state, batches_of(state))


# Batches at the edge of what there is.


def identical(batch: dict) -> None:
    for name in ("collated_global_crops", "collated_local_crops"):
        batch[name][:] = batch[name][:1]


def blank(batch: dict) -> None:
    for name in ("collated_global_crops", "collated_local_crops"):
        batch[name].fill_(1.0)


@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
@pytest.mark.parametrize(
    ("change", "options", "local_crops"),
    [
        (identical, {}, 2),
        (blank, {}, 2),
        (lambda batch: None, {"masked": lambda image: 0}, 2),
        (lambda batch: None, {"images": 1}, 2),
        (lambda batch: None, {}, 1),
        (lambda batch: None, {}, 0),
    ],
    ids=["identical tiles", "blank tiles", "no mask", "one tile", "one local crop", "no local crop"],
)
def test_odd_batches_give_finite_steps(change, options, local_crops, centering, tmp_path):
    cfg = configuration(tmp_path, centering=centering)
    cfg.crops.local_crops_number = local_crops
    state = state_of(cfg, build(cfg))
    for _ in range(3):
        batches = batches_of_rank(state.iteration, **{"images": 2, **options})
        images = len(batches[0]["collated_global_crops"]) // 2
        batches[0]["collated_local_crops"] = batches[0]["collated_local_crops"][: local_crops * images]
        change(batches[0])
        report = go_on(cfg, state, batches)
        assert report.latest["nonfinite_steps"] == 0
        assert all(math.isfinite(value) for value in (*report.figures.values(), *report.latest.values()))
    assert all(bool(tensor.isfinite().all()) for tensor in frozen_state(state).values())


# Whole runs.


def poison_tiles(monkeypatch: pytest.MonkeyPatch, *tiles: int) -> None:
    """Let a pixel of one crop of some tiles be NaN."""
    read = TrainingView._read

    def poisoned(self: TrainingView, position: int, index: int) -> Any:
        crops, tile, bad_tiles = read(self, position, index)
        if tile in tiles:
            crops["local_crops"][1][2, 3, 3] = math.nan
        return crops, tile, bad_tiles

    monkeypatch.setattr(TrainingView, "_read", poisoned)


def strict_metrics(output: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (output / "training_metrics.json").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


TINY_RUN = ("student.arch=vit_minute", "train.on_nonfinite=skip")


def tiles_of_step(iteration: int) -> list[int]:
    """Of a run over 24 tiles in batches of 4."""
    return Permutation(24, 0, Draw.ORDER, 0)(np.arange(4) + 4 * iteration).tolist()


def test_a_run_that_stops_keeps_its_good_checkpoint(image_folder, tmp_path, monkeypatch):
    tiles, output = tiles_of_step(3), tmp_path / "run"
    poison_tiles(monkeypatch, tiles[2])
    with pytest.raises(NonFiniteError, match="iteration 3: .*last checkpoint is good"):
        train(image_folder, output, "student.arch=vit_minute")
    assert Checkpointer(output / "checkpoints").steps() == [2]
    tensors = SavedCheckpoint(output / "checkpoints" / "step-0000002").read_all()
    assert all(bool(tensor.isfinite().all()) for tensor in tensors.values())
    (file,) = evidence(output)
    (batch,) = file["ranks"][0]["batches"]
    assert [tile["tile"] for tile in batch["tiles"]] == tiles
    assert [tile["nonfinite"] for tile in batch["tiles"]] == [0, 0, 1, 0]
    assert all(Path(tile["name"]).is_file() for tile in batch["tiles"])
    # The same command goes on with the other policy, and leaves the one step out.
    train(image_folder, output, *TINY_RUN)
    assert strict_metrics(output)[-1]["nonfinite_steps"] == 1


def test_a_run_that_leaves_steps_out_resumes_exactly(image_folder, tmp_path, monkeypatch):
    poison_tiles(monkeypatch, tiles_of_step(2)[0])
    monkeypatch.setattr(loop_module, "LOG_EVERY", 1)
    options = (*TINY_RUN, "train.save_frequency=0.5", "train.keep_last=0")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(image_folder, whole, *options)
    with monkeypatch.context() as crash:
        crash.setattr(SSLMetaArch, "update_teacher", crash_in_call(4, SSLMetaArch.update_teacher))
        with pytest.raises(KeyboardInterrupt):
            train(image_folder, broken, *options)
    assert Checkpointer(broken / "checkpoints").steps() == [1, 2, 3, 4]
    train(image_folder, broken, *options)
    first, second = (SavedCheckpoint(output / "checkpoints" / "step-0000006") for output in (whole, broken))
    assert equal(first.read_all(), second.read_all())
    assert first.values == second.values
    for output in (whole, broken):
        assert [line["nonfinite_steps"] for line in strict_metrics(output)] == [0, 0, 1, 1, 1, 1]


def crash_in_call(number: int, function: Callable[..., Any]) -> Callable[..., Any]:
    calls = []

    def crashing(*args: Any) -> Any:
        calls.append(None)
        if len(calls) == number:
            raise KeyboardInterrupt
        return function(*args)

    return crashing


def test_tiles_that_are_all_bad_stop_a_run_that_would_leave_steps_out(image_folder, tmp_path, monkeypatch):
    poison_tiles(monkeypatch, *range(24))
    with pytest.raises(NonFiniteError, match="iteration 1: .* 2 in a row"):
        train(image_folder, tmp_path / "run", *TINY_RUN, "train.max_nonfinite_steps=2")
    assert len(evidence(tmp_path / "run")) == 2
    assert not Checkpointer(tmp_path / "run" / "checkpoints").steps()
