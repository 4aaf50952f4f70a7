"""Schedules at the reference's points, and epochs or shares resolved to iterations."""

import pytest

from dinov2.configs import complete_config
from dinov2.errors import UserError
from dinov2.train.schedules import Schedules, resolve_timeline, scaled_learning_rate
from dinov2.utils.utils import CosineScheduler


def plan(layer: dict | None = None, num_samples: int = 1_281_167, batch: int = 2048):
    cfg = complete_config(layer or {})
    cfg.optim.lr = scaled_learning_rate(cfg, batch)
    return cfg, resolve_timeline(cfg, num_samples=num_samples, global_batch_size=batch)


def test_reference_points_of_the_default():
    cfg, timeline = plan()
    assert (timeline.total, timeline.warmup, timeline.teacher_temp_warmup) == (125_000, 12_500, 37_500)
    assert (timeline.save_every, timeline.export_every, timeline.freeze_last_layer) == (3750, 12_500, 1250)
    schedules = Schedules(cfg, timeline)
    lr = {
        0: 0.0,
        1: 4.5258454672e-07,
        12498: 0.005656401665,
        12500: 0.005656854249,
        68750: 0.002828927125,
        124999: 1.0000011026e-06,
    }
    for iteration, expected in lr.items():
        assert schedules.at(iteration).lr == pytest.approx(expected, rel=1e-9)
    assert schedules.at(62_500).weight_decay == pytest.approx(0.22)
    assert schedules.at(1).momentum == pytest.approx(0.9920000000012633, rel=1e-12)
    assert [schedules.at(i).teacher_temp for i in (0, 18_750, 37_499, 90_000)] == pytest.approx(
        [0.04, 0.05500040001, 0.07, 0.07]
    )
    assert (schedules.at(1249).last_layer_lr, schedules.at(1250).last_layer_lr) == (0.0, schedules.at(1250).lr)


def test_shares_follow_the_real_total():
    layer = {
        "optim": {"warmup_pct": 0.1, "freeze_last_layer_pct": 0.01, "max_iter": 400, "epochs": 100},
        "teacher": {"warmup_teacher_temp_pct": 0.3},
        "train": {"OFFICIAL_EPOCH_LENGTH": None, "save_frequency": 0.1},
        "tune": {"tune_every_pct": 0.5},
    }
    _, timeline = plan(layer, num_samples=1050, batch=100)
    assert (timeline.epoch_length, timeline.total, timeline.warmup, timeline.freeze_last_layer) == (10, 400, 40, 4)
    assert (timeline.teacher_temp_warmup, timeline.save_every, timeline.tune_every) == (120, 1, 5)
    assert "total 400" in str(timeline)


@pytest.mark.parametrize(("rule", "expected"), [("sqrt_wrt_1024", 0.002), ("linear_wrt_256", 0.004), ("none", 0.5)])
def test_scaling_rules(rule, expected):
    cfg = complete_config({"optim": {"scaling_rule": rule, "lr": 0.5}})
    assert scaled_learning_rate(cfg, 256) == pytest.approx(expected)


def test_batch_larger_than_the_data_set():
    with pytest.raises(UserError, match=r"a batch of 2048 .* data set of 2000 samples"):
        plan(num_samples=2000)


@pytest.mark.parametrize("key", ["warmup", "freeze_last_layer"])
def test_warmup_longer_than_the_training(key):
    with pytest.raises(UserError, match=rf"optim\.{key}_epochs.* lasts 12,500 iterations, but the training only 100;"):
        plan({"optim": {"max_iter": 100, "warmup_epochs": 0, "freeze_last_layer_epochs": 0, f"{key}_epochs": 10}})


def test_scheduler_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="exceed 10"):
        CosineScheduler(1.0, 0.0, 10, warmup_iters=8, freeze_iters=3)
