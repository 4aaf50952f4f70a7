"""Which figures and panels there are, and what is in them."""

import math

import numpy as np
import pytest

from dinov2.visualize.report.figures import make_plots
from dinov2.visualize.report.plots import describe, footnotes
from dinov2.visualize.report.run_folder import read_runs


def plots_of(*folders):
    return {plot.name: plot for plot in make_plots(read_runs(folders))}


def panel(plot, title):
    return next(panel for panel in plot.panels if panel.title == title)


def test_every_logged_name_is_drawn_and_nothing_else(make_run):
    rows = [{"iteration": i, "total_loss": 3.0, "mystery": 1.0, "current_batch_size": 4.0} for i in (0, 10)]
    plots = plots_of(make_run(metrics=rows))
    assert list(plots) == ["losses", "others"]
    assert [curve.name for curve in plots["others"].curves] == ["mystery"]
    assert plots_of(make_run("empty", metrics=[])) == {}


def test_names_without_end_are_cut_and_counted(make_run):
    rows = [{"iteration": 0, **{f"x{number}": 1.0 for number in range(33)}}]
    others = plots_of(make_run(metrics=rows))["others"]
    assert len(others.panels) == 30
    assert "3 more names are not drawn" in others.caption


def test_units(make_run):
    plots = plots_of(make_run(metrics=[{"iteration": 0, "data_wait_share": 0.25, "max_mem_mb": 2048.0}]))
    waiting, memory = plots["throughput"].panels
    assert (waiting.unit, *waiting.curves[0].band.middle) == ("share of the time [%]", 25.0)
    assert (memory.unit, *memory.curves[0].band.middle) == ("memory [GiB]", 2.0)


def test_ends_of_durations_are_marked_once_they_are_over(make_run):
    schedules = plots_of(make_run())["schedules"]
    marks = [(mark.iteration, mark.label) for mark in panel(schedules, "learning rate").marks]
    assert marks == [(10, "warm-up ends"), (10, "last layer thaws")]
    assert panel(schedules, "temperature of the teacher").marks == []  # ends after 200 iterations


def test_several_runs_have_a_colour_each(make_run):
    scores = [{"iteration": 0, "teacher.acc_1": 0.5, "student.acc_1": 0.4}]
    folders = [make_run("a", scores=scores), make_run("b", scores=scores, timeline={"total": 100, "warmup": 20})]
    plots = plots_of(*folders)
    looks = [(curve.run, curve.label, curve.colour, curve.style) for curve in plots["scores"].curves]
    assert looks == [("a", "teacher", 0, 0), ("a", "student", 0, 1), ("b", "teacher", 1, 0), ("b", "student", 1, 1)]
    marks = panel(plots["schedules"], "learning rate").marks
    assert [(mark.iteration, mark.colour) for mark in marks if mark.label == "warm-up ends"] == [(10, 0), (20, 1)]
    assert "that of the last run is seen" in footnotes(plots["losses"])


def test_the_best_score_has_a_star_and_intervals_a_band(make_run):
    scores = [
        {
            "iteration": i,
            "crc.teacher.bacc_20": v,
            "crc.teacher.bacc_20_low": v - 0.1,
            "crc.teacher.bacc_20_high": v + 0.2,
        }
        for i, v in ((0, 0.3), (50, 0.6), (100, 0.5))
    ]
    (shown,) = plots_of(make_run(scores=scores))["scores"].panels
    assert (shown.title, shown.unit) == ("k-NN, k = 20, crc", "balanced accuracy [%]")
    (star,) = shown.marks
    assert (star.iteration, star.label) == (50, "best: 60.0 %")
    assert star.value == pytest.approx(60.0)
    (curve,) = shown.curves
    np.testing.assert_allclose(curve.band.low, [20, 50, 40])
    np.testing.assert_allclose(curve.band.high, [50, 80, 70])


def test_collapse_figures_have_their_limits(make_run):
    names = {"dino_target_entropy": 1.0, "dino_mean_target_entropy": 1.5, "cls_rank": 3.0}
    config = "dino: {head_n_prototypes: 64}\n"
    collapse = plots_of(make_run(metrics=[{"iteration": 0, **names}], config=config))["collapse"]
    targets, information, rank = collapse.panels
    assert [limit.value for limit in targets.limits] == [math.log(64)]
    assert information.curves[0].band.middle.tolist() == [0.5]
    assert [limit.label for limit in (*information.limits, *rank.limits)] == ["warning below"] * 2
    assert rank.limits[0].value == 1.5


def test_gradients_are_clipped_where_the_settings_say_so(make_run):
    rows = [{"iteration": 0, "grad_norm_dino_head": 2.0, "nonfinite_steps": 0.0}]
    (shown,) = plots_of(make_run(metrics=rows, config="optim: {clip_grad: 3.0}\n"))["gradients"].panels
    assert (shown.title, shown.log, [limit.value for limit in shown.limits]) == ("DINO head", True, [3.0])
    rows[0]["nonfinite_steps"] = 2.0
    plots = plots_of(make_run("b", metrics=rows, config="optim: {clip_grad: [1]}\n"))
    assert [shown.title for shown in plots["gradients"].panels] == ["DINO head", "steps left out so far"]
    assert plots["gradients"].panels[0].limits == []


def test_what_is_not_finite_breaks_the_line_and_is_counted(make_run):
    values = [1.0, float("nan"), 3.0, float("inf")]
    rows = [{"iteration": i, "total_loss": value} for i, value in enumerate(values)]
    plot = plots_of(make_run(metrics=rows))["losses"]
    (curve,) = plot.curves
    np.testing.assert_array_equal(curve.band.middle, [1, np.nan, 3, np.nan])
    assert footnotes(plot) == "Lines are broken at 2 reports that are no finite number."
    assert describe(plot.panels[0]) == ("sum of the parts [loss]: from 1 at iteration 0 to 3 at 2, between 1 and 3.")


def test_long_runs_are_thinned_and_say_so(make_run):
    rows = [{"iteration": 10 * i, "total_loss": 50.0 if i == 777 else 1.0} for i in range(2000)]
    plot = plots_of(make_run(metrics=rows))["losses"]
    (curve,) = plot.curves
    assert len(curve.band.x) == 200
    assert curve.band.high.max() == 50.0
    assert "up to 10 reports" in footnotes(plot)


def test_many_long_runs_are_thinned_more(make_run):
    rows = [{"iteration": i, "total_loss": 1.0} for i in range(600)]
    runs = [make_run(name, metrics=rows) for name in "abcdef"]
    assert [len(curve.band.x) for curve in plots_of(*runs)["losses"].curves] == [100] * 6
