"""What the table at the top of a report says."""

import os
import time

import pytest

from dinov2.visualize.report.facts import IDLE_AFTER, facts_of, state_of, tiles_seen, training_seconds
from dinov2.visualize.report.run_folder import read_runs

STOPPING = "tune:\n  early_stopping:\n    enable: true\n    tracking: bacc_20\n"


def age(folder, seconds):
    """Let all files of a folder be that old."""
    for path in (folder, *folder.rglob("*")):
        os.utime(path, (time.time() - seconds,) * 2)


def test_time_and_tiles_count_every_iteration_once(make_run):
    (run,) = read_runs([make_run()])
    assert training_seconds(run) == pytest.approx(200.0)
    assert tiles_seen(run) == 100 * 32  # 16 tiles a second for 2 seconds each


def test_a_run_that_has_reached_its_end_is_finished(make_run):
    folder = make_run()
    assert state_of(read_runs([folder])[0]) == "finished"
    (folder / "checkpoints" / "step-0000090").mkdir(parents=True)
    assert state_of(read_runs([folder])[0]) == "running"  # the last checkpoint is being written
    (folder / "checkpoints" / "step-0000100").mkdir()
    assert state_of(read_runs([folder])[0]) == "finished"


def test_a_run_that_is_not_at_its_end_runs_if_it_has_just_written(make_run):
    folder = make_run(timeline={"total": 1000})
    assert state_of(read_runs([folder])[0]) == "running"
    age(folder, IDLE_AFTER + 5000)
    assert state_of(read_runs([folder])[0]).startswith("not running: nothing written for 1:53:")
    (folder / "logs").mkdir()
    (folder / "logs" / "log.txt").touch()
    assert state_of(read_runs([folder])[0]) == "running"


def test_a_run_that_was_asked_to_stop_does_not_run_until_it_goes_on(make_run):
    folder = make_run(timeline={"total": 1000})
    (folder / "logs").mkdir()
    log = folder / "logs" / "log.txt"
    log.write_text("I1 loop.py:77] asked to stop by SIGTERM: saved after 100 iterations\n")
    assert state_of(read_runs([folder])[0]).startswith("stopped when asked to")
    log.write_text(log.read_text() + "I2 config.py:117] 1 process(es)\n")
    assert state_of(read_runs([folder])[0]) == "running"


def test_a_run_that_stopped_early(make_run):
    timeline = {"total": 1000, "early_stopping_patience": 60, "early_stopping_minimum": 0}
    scores = [{"iteration": i, "teacher.bacc_20": value} for i, value in ((0, 0.1), (40, 0.9), (100, 0.2))]
    (run,) = read_runs([make_run(timeline=timeline, scores=scores, config=STOPPING)])
    assert state_of(run) == "stopped early"
    facts = dict(facts_of([run]))
    assert facts["best score"] == ["90.0 % after 40 iterations: k-NN balanced accuracy, k = 20, teacher"]
    assert facts["newest score"] == ["20.0 % after 100 iterations"]


def test_facts(make_run):
    folder = make_run()
    (folder / "checkpoints" / "step-0000100").mkdir(parents=True)
    (folder / "eval" / "training_99").mkdir(parents=True)
    (folder / "eval" / "training_99" / "teacher_checkpoint.pth").touch()
    facts = {name: texts[0] for name, texts in facts_of(read_runs([folder]))}
    del facts["last written to"]
    assert facts == {
        "state": "finished",
        "iterations": "100 of 100 (100%)",
        "model": "vit_small/14",
        "time in training steps": "3.3 min",
        "tiles seen": "3,200",
        "tiles per second": "16.0 on average, 16.0 last",
        "waiting for data": "25% of the time",
        "bad tiles": "0",
        "steps without a finite loss or gradient": "0",
        "newest checkpoint": "after 100 iterations; 1 kept",
        "exported teachers": "1, the newest eval/training_99/teacher_checkpoint.pth",
        "folder": str(folder),
    }


def test_facts_of_several_runs_and_of_one_without_reports(make_run):
    runs = read_runs([make_run("a"), make_run("b", metrics=[])])
    facts = dict(facts_of(runs))
    assert facts["iterations"] == ["100 of 100 (100%)", "0 of 100 (0%)"]
    assert facts["tiles seen"] == ["3,200", "\N{EN DASH}"]
    assert "best score" not in facts
