"""The last words of a training."""

import json

import pytest

from dinov2.train.early_stopping import EarlyStopping
from dinov2.train.outcome import describe_outcome

NAME = "teacher.bacc_20"


def outcome(folder, rows, *, patience=None, keeps_best=True, kept=True):
    tracked = EarlyStopping("bacc_20", patience=patience, keeps_best=keeps_best)
    for row in rows:
        tracked.update(row, row["iteration"])
    (folder / "results").mkdir()
    (folder / "results" / "tune.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if kept:
        (folder / "eval" / "best").mkdir(parents=True)
        (folder / "eval" / "best" / "teacher_checkpoint.pth").touch()
    tiles = ["KNN:root=a b", "..."]
    return describe_outcome(tracked, iteration=rows[-1]["iteration"], total=400, output_dir=folder, tiles=tiles)


ROWS = [
    {"iteration": 0, NAME: 0.8, f"{NAME}_low": 0.7, "teacher.linear_bacc": 0.5, "teacher.site_bacc_20": 0.3},
    {"iteration": 100, NAME: 0.9, f"{NAME}_low": 0.8, "teacher.linear_bacc": 0.6, "teacher.site_bacc_20": 0.3},
    {"iteration": 200, NAME: 0.7, f"{NAME}_low": 0.6, "teacher.linear_bacc": 0.7, "teacher.site_bacc_20": 0.3},
]


def test_an_early_stop_says_at_which_step_and_why(tmp_path):
    said = outcome(tmp_path, ROWS, patience=100)
    assert "ended after 200 of 400 iterations, by early stopping" in said
    assert "teacher.bacc_20 was best after 100 (0.9)" in said
    assert "not improved in the 100 iterations since (patience: 100)" in said
    assert "tune.early_stopping.enable=false" in said


def test_scores_that_fell_and_rose_and_by_which_a_teacher_is_chosen(tmp_path):
    said = outcome(tmp_path, ROWS)
    assert "teacher.bacc_20 fell: 0.8 after 0 iterations, 0.7 at the end, highest 0.9 after 100" in said
    assert "teacher.linear_bacc rose: 0.5 after 0 iterations, 0.7 at the end, highest 0.7 after 200" in said
    assert "1 of these 2 fell. The best teacher is chosen by teacher.bacc_20 alone" in said
    assert f"of iteration 100: {tmp_path}/eval/best/teacher_checkpoint.pth" in said
    assert f"last teacher: {tmp_path}/eval/training_199/teacher_checkpoint.pth" in said
    assert f"--weights {tmp_path}/eval/best/teacher_checkpoint.pth --to timm" in said
    assert "site_bacc" not in said and "_low" not in said and "early_stopping.enable" not in said


def test_without_a_kept_teacher_it_is_the_last_and_says_how_to_keep_one(tmp_path):
    said = outcome(tmp_path, ROWS, keeps_best=False, kept=False)
    assert "tune.keep_best=true keeps it" in said
    assert f"--pretrained-weights {tmp_path}/eval/training_199/teacher_checkpoint.pth" in said


@pytest.mark.parametrize("rows", [[{"iteration": 400}], [{"iteration": 0}, {"iteration": 400}]])
def test_without_scores_there_are_still_the_commands(tmp_path, rows):
    said = outcome(tmp_path, rows, kept=False)
    assert said.startswith("training ended after 400 of 400 iterations\n")
    assert f"python -m dinov2.visualize.run {tmp_path}" in said


def test_a_training_that_never_got_better_says_that_its_best_teacher_is_untrained(tmp_path):
    assert "of iteration 0 (before the first step): " in outcome(tmp_path, [ROWS[1] | {"iteration": 0}, ROWS[2]])


def test_folders_with_spaces_can_be_pasted(tmp_path):
    (tmp_path / "my runs").mkdir()
    said = outcome(tmp_path / "my runs", ROWS)
    assert f"visualize.run '{tmp_path}/my runs'" in said
    assert said.count("--train-dataset 'KNN:root=a b' --val-dataset ...") == 1
