"""Folders of runs, and folders that are none."""

import pytest

from dinov2.errors import UserError
from dinov2.visualize.report.run_folder import read_runs


def test_what_is_read(make_run):
    folder = make_run(scores=[{"iteration": 100, "teacher.acc_1": 0.5}])
    (folder / "results" / "bad_tiles.jsonl").write_text('{"tile": 1}\n{"tile": 2}\noops\n{"tile')
    (folder / "results" / "nonfinite_0000012.json").write_text("{}")
    for step in (20, 100):
        (folder / "checkpoints" / f"step-{step:07d}").mkdir(parents=True)
    (folder / "eval" / "training_99").mkdir(parents=True)
    (folder / "eval" / "training_99" / "teacher_checkpoint.pth").touch()
    (run,) = read_runs([folder])
    assert (run.label, run.steps, run.total) == ("run", 100, 100)
    assert [row["tile"] for row in run.bad_tiles] == [1, 2]
    assert run.notes == ("1 line(s) of results/bad_tiles.jsonl cannot be read and are left out",)
    assert run.checkpoints == [20, 100]
    assert [path.name for path in (*run.nonfinite, *run.exports)] == [
        "nonfinite_0000012.json",
        "teacher_checkpoint.pth",
    ]
    assert run.settings.values["student.arch"] == "vit_small"


def test_a_run_that_has_only_begun(tmp_path):
    (tmp_path / "timeline.json").write_text('{"total": 7}')
    (run,) = read_runs([tmp_path])
    assert (run.steps, run.total) == (0, 7)
    assert run.notes == ("config.yaml is missing: what the run was told is not known",)


def test_steps_are_those_of_whatever_tells_of_the_most(make_run):
    folder = make_run(metrics=[{"iteration": 4}], scores=[{"iteration": 6, "teacher.acc_1": 0.5}])
    assert read_runs([folder])[0].steps == 6
    (folder / "checkpoints" / "step-0000008").mkdir(parents=True)
    assert read_runs([folder])[0].steps == 8


def test_a_run_of_another_program(tmp_path):
    (tmp_path / "training_metrics.json").write_text('{"iteration": 4, "total_loss": 3.0}\n')
    (run,) = read_runs([tmp_path])
    assert (run.steps, run.total) == (5, None)


@pytest.mark.parametrize(
    ("text", "fault"), [("a: [", "cannot be read (ParserError)"), ("- 1", "holds no settings"), ("{}", "")]
)
def test_a_configuration_that_cannot_be_used_is_named(make_run, text, fault):
    (run,) = read_runs([make_run(config=text)])
    assert run.settings.values == {}
    assert run.settings.fault == fault
    assert bool(run.notes) == bool(fault)


def test_folders_that_are_no_run(tmp_path, make_run):
    with pytest.raises(UserError, match=r"neither training_metrics.json nor timeline.json.*found nothing"):
        read_runs([tmp_path])
    make_run("quick/run")
    for name in "cab":
        (tmp_path / "quick" / f"{name}.txt").touch()
    with pytest.raises(UserError, match=r"found a.txt, b.txt, c.txt, run. did you mean .*quick/run\?"):
        read_runs([tmp_path / "quick"])
    with pytest.raises(UserError, match=r"none is not a folder; expected the --output-dir"):
        read_runs([tmp_path / "none"])
    with pytest.raises(UserError, match="given twice"):
        read_runs([tmp_path / "quick" / "run", tmp_path / "quick" / ".." / "quick" / "run"])


def test_labels_are_as_short_as_they_can_be(make_run):
    folders = [make_run(name) for name in ("a/run", "b/run", "c/other")]
    assert [run.label for run in read_runs(folders)] == ["a/run", "b/run", "other"]
