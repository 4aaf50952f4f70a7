"""Names of scores, and which one is the best."""

from types import SimpleNamespace

import numpy as np
import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config
from dinov2.train.early_stopping import EarlyStopping
from dinov2.visualize.report.run_folder import read_runs
from dinov2.visualize.report.score_figure import readable, shown_value
from dinov2.visualize.report.score_table import score_tables
from dinov2.visualize.report.scores import (
    Best,
    ScoreName,
    best_score,
    drawn_variants,
    parse_name,
    score_names,
    stopped_early,
)

EARLY = "tune:\n  early_stopping:\n    enable: true\n    tracking: auc_20\n    min_max: {mode}\n"


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("teacher.bacc_20", ("", "teacher", "knn", "bacc", 20)),
        ("student.acc_10_5shot", ("", "student", "knn", "acc", 10, 5)),
        ("teacher.linear_bacc", ("", "teacher", "linear", "bacc")),
        ("crc.teacher.bacc_20", ("crc", "teacher", "knn", "bacc", 20)),
        ("a.b_c.student.linear_f1_low", ("a.b_c", "student", "linear", "f1", None, None, "low")),
        ("teacher.auc_20_high", ("", "teacher", "knn", "auc", 20, None, "high")),
        ("crc.teacher.log_regression_f1_high", ("crc", "teacher", "log_regression", "f1", None, None, "high")),
        ("loss", ("", "", "", "loss")),
        ("crc.loss_low", ("crc", "", "", "loss", None, None, "low")),
        ("teacher.low", ("", "teacher", "", "low")),
        ("teacher.", ("", "teacher", "", "")),
    ],
)
def test_names_are_taken_apart(name, parts):
    assert parse_name(name) == ScoreName(*parts)


def test_bounds_are_no_scores_of_their_own():
    names = ["teacher.acc_5", "teacher.acc_5_low", "teacher.acc_5_high", "alone_low"]
    assert score_names(names) == ["teacher.acc_5", "alone_low"]


@pytest.mark.parametrize(
    ("ks", "tracking", "drawn"), [([10, 20, 100], "auc_10", 10), ([10, 20, 100], "auc_7", 20), ([1, 5], "", 5)]
)
def test_one_number_of_neighbours_is_drawn(ks, tracking, drawn):
    names = [f"{network}.acc_{k}{shots}" for network in ("student", "teacher") for k in ks for shots in ("", "_4shot")]
    groups = drawn_variants([*names, "crc.teacher.linear_acc"], tracking)
    assert groups == {
        ("", "knn", "acc"): [f"teacher.acc_{drawn}", f"student.acc_{drawn}"],
        ("crc", "linear", "acc"): ["crc.teacher.linear_acc"],
    }


def test_all_labelled_tiles_come_before_few():
    groups = drawn_variants(["teacher.acc_20_4shot", "teacher.acc_100"], "")
    assert groups == {("", "knn", "acc"): ["teacher.acc_100"]}


def of_data_set(data_set, lines):
    """The same scores of a named data set, beside another's that are better."""
    if not data_set:
        return lines
    return [
        {"iteration": line["iteration"], "teacher.auc_20": line["iteration"]}
        | {f"{data_set}.{name}": value for name, value in line.items() if name != "iteration"}
        for line in lines
    ]


def rows(values):
    return [{"iteration": 10 * i, "teacher.auc_20": v, "teacher.bacc_20": -v} for i, v in enumerate(values)]


@pytest.mark.parametrize(
    ("mode", "values", "value", "iteration"),
    [("max", [0.1, 0.4, 0.4, 0.2], 0.4, 10), ("min", [0.3, 0.2, float("nan"), 0.2], 0.2, 10)],
)
def test_the_best_is_the_first_of_equals(make_run, mode, values, value, iteration):
    run = read_runs([make_run(scores=rows(values), config=EARLY.format(mode=mode))])[0]
    assert best_score(run) == Best("teacher.auc_20", value, iteration, None, True)


def test_the_best_without_early_stopping_is_balanced_accuracy(make_run):
    lines = [{"iteration": 0, "student.bacc_5": 0.9, "teacher.acc_5": 0.8, "teacher.bacc_5": 0.5}]
    lines[0] |= {"teacher.bacc_5_low": 0.4, "teacher.bacc_5_high": 0.6}
    run = read_runs([make_run(scores=lines)])[0]
    assert best_score(run) == Best("teacher.bacc_5", 0.5, 0, (0.4, 0.6), False)


def test_no_best_without_a_finite_score_of_a_teacher(make_run):
    for name, lines in (("a", []), ("b", rows([float("nan")])), ("c", [{"iteration": 0, "student.acc_1": 1.0}])):
        assert best_score(read_runs([make_run(name, scores=lines)])[0]) is None


def test_the_best_of_a_named_data_set(make_run):
    config = EARLY.format(mode="max").replace("auc_20", "crc.auc_20")
    lines = of_data_set("crc", rows([0.1, 0.4, 0.2]))
    run = read_runs([make_run(scores=lines, config=config)])[0]
    assert best_score(run) == Best("crc.teacher.auc_20", 0.4, 10, None, True)


@pytest.mark.parametrize(
    ("patience", "minimum", "enable", "stops"),
    [(20, 0, "true", True), (21, 0, "true", False), (20, 31, "true", False), (20, 0, "false", False)],
)
def test_stopping_when_patience_has_run_out(make_run, patience, minimum, enable, stops):
    timeline = {"total": 100, "early_stopping_patience": patience, "early_stopping_minimum": minimum}
    config = EARLY.format(mode="max").replace("enable: true", f"enable: {enable}")
    run = read_runs([make_run(scores=rows([0.1, 0.4, 0.2, 0.3]), timeline=timeline, config=config)])[0]
    assert stopped_early(run) is stops


@pytest.mark.parametrize("data_set", ["", "crc"])
@pytest.mark.parametrize("seed", range(9))
def test_stopping_is_that_of_the_training(make_run, seed, data_set):
    rng = np.random.default_rng(seed)
    values = rng.choice([0.1, 0.2, 0.3, float("nan")], size=6).tolist() if seed else [float("nan")] * 6
    mode, patience, minimum = rng.choice(["min", "max"]), int(rng.integers(1, 5)) * 10, int(rng.integers(0, 50))
    timeline = {"total": 100, "early_stopping_patience": patience, "early_stopping_minimum": minimum}
    config = EARLY.format(mode=mode).replace("auc_20", f"{data_set}.auc_20" if data_set else "auc_20")
    cfg = complete_config(OmegaConf.create(config))
    rule = EarlyStopping.from_config(cfg, SimpleNamespace(**timeline))
    lines = of_data_set(data_set, rows(values))
    for line in lines:
        rule.update(line, line["iteration"])
    (run,) = read_runs([make_run(scores=lines, timeline=timeline, config=config)])
    assert stopped_early(run) is rule.stopped
    if best := best_score(run):
        assert best.iteration == rule.best_iteration


def test_scores_for_people(make_run):
    assert readable("crc.teacher.linear_bacc") == "linear probe balanced accuracy, teacher, crc"
    assert readable("teacher.log_regression_auc") == "logistic regression AUROC, teacher"
    assert readable("student.auc_5_3shot") == "k-NN AUROC, k = 5, 3 per class, student"
    assert shown_value("teacher.bacc_20", 0.1234) == "12.3 %"
    assert shown_value("teacher.auc_20", 0.1234) == "0.123"
    lines = [{"iteration": i, "teacher.acc_1": a, "x.depth": i} for i, a in ((0, 0.2), (5, 0.9), (8, 0.3))]
    lines[0]["teacher.site_bacc_1"] = lines[2]["teacher.site_bacc_1"] = 0.75
    (table,) = score_tables(read_runs([make_run(scores=lines)])[0])
    assert table.rows == [
        ("k-NN accuracy, k = 1, teacher", "20.0 %", "90.0 %", "5", "30.0 %"),
        ("depth, x", "0.000", "", "", "8.000"),
        ("site balanced accuracy, k = 1, teacher", "75.0 %", "", "", "75.0 %"),
    ]
