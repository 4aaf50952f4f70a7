"""The best score so far, and when training stops."""

import pytest

from dinov2.configs import complete_config
from dinov2.train.early_stopping import EarlyStopping
from dinov2.train.schedules import resolve_timeline


@pytest.mark.parametrize(
    ("mode", "scores", "stops"), [("max", [0.5, 0.6, 0.6, 0.5], [0, 0, 0, 1]), ("min", [0.5, 0.4, 0.3, 0.2], [0] * 4)]
)
def test_patience_is_in_iterations(mode, scores, stops):
    settings = {"enable": True, "tracking": "acc_10", "min_max": mode, "patience_pct": 0.2, "min_epoch_pct": 0.0}
    cfg = complete_config(
        {
            "optim": {"max_iter": 100, "warmup_epochs": 0, "freeze_last_layer_epochs": 0},
            "tune": {"early_stopping": settings},
        }
    )
    timeline = resolve_timeline(cfg, num_samples=10_000, global_batch_size=10)
    stopping = EarlyStopping.from_config(cfg, timeline)
    found = []
    for number, score in enumerate(scores):
        stopping.update({"teacher.acc_10": score, "student.acc_10": 1.0}, 10 * number)
        found.append(stopping.stopped)
    assert found == [bool(stop) for stop in stops]
    copy = EarlyStopping.from_config(cfg, timeline)
    copy.load_state_dict(stopping.state_dict())
    assert copy == stopping


def test_not_before_the_minimum():
    stopping = EarlyStopping("acc_1", patience=5, minimum=30)
    stops = []
    for iteration in (0, 10, 20, 30):
        stopping.update({"teacher.acc_1": 0.5}, iteration)
        stops.append(stopping.stopped)
    assert stops == [False, False, False, True]


def test_a_score_that_is_no_number_is_no_improvement():
    stopping = EarlyStopping("acc_1", patience=5, best=0.4, best_iteration=10)
    stopping.update({"teacher.acc_1": float("nan")}, 15)
    assert stopping.stopped
    assert stopping.best == 0.4


def test_the_best_is_known_without_early_stopping():
    tracked = EarlyStopping("crc.linear_bacc", sign=-1.0, keeps_best=True)
    assert tracked.kept_steps() == frozenset()
    for iteration, score in enumerate((0.5, 0.3, 0.4)):
        tracked.update({"crc.teacher.linear_bacc": score, "teacher.linear_bacc": 0.0}, iteration)
        assert tracked.is_best_at(iteration) is (iteration < 2)
        assert not tracked.stopped
    assert (tracked.best_iteration, tracked.best_score, tracked.kept_steps()) == (1, 0.3, {1})
    tracked.keeps_best = False
    assert tracked.kept_steps() == frozenset()


def test_more_patience_after_a_stop_goes_on():
    stopping = EarlyStopping("acc_1", patience=5, best=0.4, best_iteration=10, newest=15)
    assert stopping.stopped
    for patience, stops in ((5, True), (6, False), (None, False)):
        patient = EarlyStopping("acc_1", patience=patience)
        patient.load_state_dict(stopping.state_dict())
        assert patient.stopped is stops


def test_another_score_is_tracked_from_where_it_begins(caplog):
    before = EarlyStopping("acc_1", best=0.9, best_iteration=10, newest=30)
    after = EarlyStopping("auc_1", patience=20)
    after.load_state_dict(before.state_dict())
    assert "from here on auc_1 is tracked, not acc_1" in caplog.text
    after.update({"teacher.auc_1": 0.5}, 40)
    assert (after.best, after.best_iteration, after.stopped) == (0.5, 40, False)
