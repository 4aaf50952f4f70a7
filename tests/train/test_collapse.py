"""The figures that show a collapse, against naive ones, and the alarm."""

import logging
import math

import numpy as np
import pytest
import torch
from golden import normal
from ranks import run_ranks
from runs import metrics_of, train
from steps import batches_of_rank, build, state_of, take_steps, tiny_config, whole_weights
from torch import Tensor

from dinov2.distributed import get_global_rank, get_global_size
from dinov2.train.collapse import (
    EARLIEST_ALARM,
    FEWEST_IMAGES,
    MOST_IMAGES,
    PATIENCE,
    CollapseAlarm,
    collapse_indicators,
    effective_rank,
    target_indicators,
    token_indicators,
)
from dinov2.train.outputs import MOST_ROWS, Observation, Predictions, Targets
from dinov2.train.state import TrainState

FIGURES = [
    *("dino_target_entropy", "dino_mean_target_entropy", "dino_prototypes_used"),
    *("ibot_target_entropy", "ibot_mean_target_entropy", "ibot_prototypes_used"),
    *("cls_std", "cls_rank", "student_teacher_cosine"),
]


def entropy(distribution: np.ndarray) -> float:
    return -sum(float(p) * math.log(float(p)) for p in distribution if p > 0)


def naive(observation: Observation) -> dict[str, float]:
    """The same figures of one process, in float64 and with loops."""
    figures = {}
    for kind, targets in (("dino", observation.cls_targets), ("ibot", observation.patch_targets)):
        rows = targets.double().numpy()
        figures[f"{kind}_target_entropy"] = sum(map(entropy, rows)) / len(rows)
        figures[f"{kind}_mean_target_entropy"] = entropy(rows.mean(axis=0))
        figures[f"{kind}_prototypes_used"] = len({int(row.argmax()) for row in rows}) / min(rows.shape)
    student, teacher = (tokens.double().numpy() for tokens in (observation.student_tokens, observation.teacher_tokens))
    cosines = [a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(student, teacher, strict=True)]
    figures["student_teacher_cosine"] = sum(cosines) / len(cosines)
    first = teacher[: len(teacher) // 2]
    units = np.stack([row / np.linalg.norm(row) for row in first])
    figures["cls_std"] = units.std(axis=0).mean() * units.shape[1] ** 0.5
    singular = np.linalg.svd(first, compute_uv=False)
    figures["cls_rank"] = math.exp(entropy(singular / singular.sum()))
    return figures


def observation(images: int, *, masked: int) -> Observation:
    """Of made-up networks with tokens of 12 numbers and 9 prototypes."""
    return Observation(
        cls_targets=torch.softmax(2 * normal("cls", (2 * images, 9)), dim=1),
        patch_targets=torch.softmax(2 * normal("patches", (masked, 9)), dim=1),
        teacher_tokens=1 + normal("teacher", (2 * images, 12)),
        student_tokens=1 + normal("student", (2 * images, 12)),
    )


@pytest.mark.parametrize(("images", "masked"), [(5, 3), (40, 100)])
def test_figures_are_those_of_their_formulas(images, masked):
    found = collapse_indicators(observation(images, masked=masked))
    assert list(found) == FIGURES
    assert found == pytest.approx(naive(observation(images, masked=masked)), rel=1e-5)


def indicators_of_share(whole: Observation) -> dict[str, float]:
    """Of a rank that has a share of the images and, if it is not the last, of the masked patches."""
    rank, size = get_global_rank(), get_global_size()

    def share(crops: Tensor) -> Tensor:
        return crops.unflatten(0, (2, -1)).chunk(size, dim=1)[rank].flatten(0, 1)

    patches = whole.patch_targets.chunk(size - 1)[rank] if rank < size - 1 else whole.patch_targets[:0]
    return collapse_indicators(
        Observation(share(whole.cls_targets), patches, share(whole.teacher_tokens), share(whole.student_tokens))
    )


def test_ranks_together_find_what_one_process_finds():
    whole = observation(12, masked=7)
    ranks = run_ranks(indicators_of_share, 3, whole)
    assert ranks[0] == ranks[1] == ranks[2]
    assert ranks[0] == pytest.approx(collapse_indicators(whole), rel=1e-5)


def test_targets_at_both_ends():
    same = torch.eye(9)[torch.zeros(20, dtype=torch.int64)]
    assert target_indicators(same) == pytest.approx(
        {"target_entropy": 0.0, "mean_target_entropy": 0.0, "prototypes_used": 1 / 9}
    )
    own = torch.eye(9)[torch.arange(18) % 9]
    assert target_indicators(own) == pytest.approx(
        {"target_entropy": 0.0, "mean_target_entropy": math.log(9), "prototypes_used": 1.0}
    )
    uniform = target_indicators(torch.full((20, 9), 1 / 9))
    assert uniform["target_entropy"] == pytest.approx(math.log(9))
    assert uniform["mean_target_entropy"] == pytest.approx(math.log(9))
    assert target_indicators(torch.empty(0, 9)) == {}


def test_tokens_at_both_ends():
    same = normal("token", (1, 30)).expand(40, 30)
    assert token_indicators(same) == pytest.approx({"cls_std": 0.0, "cls_rank": 1.0}, abs=1e-3)
    spread = token_indicators(normal("tokens", (2000, 30)))
    assert spread["cls_std"] == pytest.approx(1.0, abs=0.01)
    assert spread["cls_rank"] == pytest.approx(30.0, abs=0.5)
    assert float(effective_rank(torch.eye(7, 20) * 3)) == pytest.approx(7.0)
    assert token_indicators(normal("tokens", (2, 30))) == {}  # two crops of one image


def test_a_huge_batch_is_looked_at_in_part():
    many = normal("tokens", (2 * MOST_IMAGES + 60, 5))
    assert token_indicators(many) == token_indicators(torch.cat((many[:MOST_IMAGES],) * 2))
    targets = torch.rand(2, 3 * MOST_ROWS, 4)
    predictions = Predictions(None, torch.empty(0), None, torch.rand(6, 3))
    made = Observation.of(Targets(targets, torch.rand(MOST_ROWS + 1, 4), torch.rand(2, 3, 3)), predictions)
    assert torch.equal(made.cls_targets, targets.flatten(0, 1)[::6])
    assert len(made.patch_targets) == MOST_ROWS // 2 + 1


def test_what_is_observed_belongs_together_and_is_a_copy():
    model = build(tiny_config(train={"centering": "sinkhorn_knopp"}))
    for parameter, source in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
        parameter.data.copy_(source)
    batch = batches_of_rank(0, masked=lambda image: 0)[0]
    model.eval()
    seen = model.forward_backward(batch, 0.05, observe=True).observation
    # Without masks and with equal weights, student and teacher answer the same for each crop.
    assert torch.allclose(seen.student_tokens, seen.teacher_tokens, atol=1e-5)
    assert not torch.allclose(seen.student_tokens[0], seen.teacher_tokens[-1], atol=1e-3)
    for tensor in seen:
        assert tensor.dtype == torch.float32
        assert not tensor.requires_grad
        assert tensor.untyped_storage().nbytes() == tensor.numel() * 4
    assert model.forward_backward(batch, 0.05).observation is None


@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
def test_training_does_not_notice_that_it_is_looked_at(centering, tmp_path):
    found = []
    for every in (0, 1):
        settings = {"centering": centering, "indicators_every": every, "output_dir": str(tmp_path)}
        cfg = tiny_config(train=settings, student={"drop_path_rate": 0.3})
        state = state_of(cfg, build(cfg))
        figures = take_steps(cfg, state, 3, parts=2)
        found.append((figures, whole_weights(state.model)))
    (blind, weights), (watched, same_weights) = found
    assert blind == watched
    assert all(np.array_equal(weights[name], same_weights[name]) for name in weights)


def collapsed_figures(cfg: object) -> dict[str, float]:
    """Of a teacher whose backbone answers the same to every image."""
    model = build(cfg)
    norm = model.teacher["backbone"].norm
    torch.nn.init.zeros_(norm.weight)
    torch.nn.init.normal_(norm.bias, generator=torch.Generator().manual_seed(0))
    batch = batches_of_rank(0, images=8)[0]
    return collapse_indicators(model.forward_backward(batch, 0.05, observe=True).observation)


def alarm(caplog: pytest.LogCaptureFixture, *measured: dict[str, float], start: int = 0, every: int = 10) -> list[str]:
    """What an alarm says to a run of figures."""
    caplog.clear()
    listener = CollapseAlarm(start)
    with caplog.at_level(logging.WARNING, "dinov2"):
        for number, figures in enumerate(measured):
            listener.look(figures, number * every)
    return caplog.messages


def test_a_constant_teacher_is_noticed(caplog):
    figures = collapsed_figures(tiny_config(train={"centering": "centering"}))
    messages = alarm(caplog, *[figures] * (PATIENCE + 3))
    assert [message.split("(")[1].split(" = ")[0] for message in messages] == [
        "cls_std",
        "cls_rank",
        "dino_mean_target_entropy - dino_target_entropy",
        "ibot_mean_target_entropy - ibot_target_entropy",
    ]
    assert messages[0].startswith(f"iteration {10 * (PATIENCE - 1)}: the training may have collapsed")


HEALTHY = {
    "dino_target_entropy": 3.0,
    "dino_mean_target_entropy": 3.4,
    "ibot_target_entropy": 3.0,
    "ibot_mean_target_entropy": 4.0,
    "cls_std": 0.8,
    "cls_rank": 9.0,
}


def test_the_alarm_waits_and_speaks_once(caplog):
    low = {**HEALTHY, "cls_std": 0.03}
    assert not alarm(caplog, *[HEALTHY] * 20)
    assert not alarm(caplog, *[low] * (PATIENCE - 1), HEALTHY, *[low] * (PATIENCE - 1))
    assert not alarm(caplog, *[low] * 20, start=200)
    assert not alarm(caplog, *[{"nonfinite_steps": 1.0}] * 20)  # not measured
    assert len(alarm(caplog, *[low] * 20, start=150)) == 1
    assert len(alarm(caplog, *[low] * 20)) == 1
    assert len(alarm(caplog, *[low] * 8, HEALTHY, *[low] * 8)) == 2  # and again after a recovery


def test_when_the_alarm_listens():
    assert CollapseAlarm.after_warmup(12_500, images=64) == CollapseAlarm(12_500)
    assert CollapseAlarm.after_warmup(0, images=FEWEST_IMAGES) == CollapseAlarm(EARLIEST_ALARM)
    assert CollapseAlarm.after_warmup(0, images=FEWEST_IMAGES - 1) == CollapseAlarm(math.inf)


def test_figures_reach_the_metrics_of_a_run(image_folder, tmp_path, monkeypatch):
    settings = ("student.arch=vit_minute", "optim.max_iter=5")
    monkeypatch.setattr("dinov2.train.loop.LOG_EVERY", 1)
    train(image_folder, tmp_path / "run", *settings, "train.indicators_every=3")
    lines = metrics_of(tmp_path / "run")
    assert all(set(FIGURES) <= line.keys() for line in lines)
    shown = [line["cls_std"] for line in lines]
    assert shown[0] == shown[1] == shown[2] != shown[3] == shown[4]  # the last ones measured
    train(image_folder, tmp_path / "without", *settings, "train.indicators_every=0")
    for ours, theirs in zip(lines, metrics_of(tmp_path / "without"), strict=True):
        assert not set(FIGURES) & theirs.keys()
        assert {name: ours[name] for name in theirs if "loss" in name or "norm" in name} == {
            name: value for name, value in theirs.items() if "loss" in name or "norm" in name
        }


def test_a_collapse_in_a_run_is_told(image_folder, tmp_path, monkeypatch):
    """The teacher's backbone is made constant before every step, and the student too."""
    monkeypatch.setattr("dinov2.train.collapse.EARLIEST_ALARM", 2)
    monkeypatch.setattr("dinov2.train.collapse.FEWEST_IMAGES", 4)
    created = TrainState.__post_init__

    def constant(self: TrainState) -> None:
        created(self)
        for network in (self.model.student, self.model.teacher):
            norm = network["backbone"].norm
            torch.nn.init.zeros_(norm.weight)
            torch.nn.init.ones_(norm.bias)

    monkeypatch.setattr(TrainState, "__post_init__", constant)
    settings = ("student.arch=vit_minute", "optim.max_iter=8", "optim.base_lr=0", "optim.min_lr=0")
    train(image_folder, tmp_path / "run", *settings, "train.indicators_every=1")
    log = (tmp_path / "run" / "logs" / "log.txt").read_text()
    assert log.count(f"] iteration {1 + PATIENCE}: the training may have collapsed") == 4
    assert log.count("collapsed") == 4
