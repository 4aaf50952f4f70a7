"""The best teacher and the checkpoint of its step stay."""

import json
import os
from pathlib import Path

import pytest
import torch
from crashes import planned, run
from eval_making import write_tiles
from runs import arguments, train

from dinov2.train import best as best_module
from dinov2.train.checkpoint import Checkpointer, SavedCheckpoint, Snapshot
from dinov2.train.tuning import Tuner

SCORES = {0: 0.1, 3: 0.5, 6: 0.3, 9: 0.4}
KILLED = -9


@pytest.fixture
def command(image_folder: Path, tmp_path: Path) -> list[str]:
    """Settings of a run of ten steps that saves every four, and evaluates every three."""
    data = [f"tune.{name}_dataset_path=ImageFolder:root={write_tiles(tmp_path / name)}" for name in ("query", "test")]
    return [
        *("student.arch=vit_mini", "optim.max_iter=10", "train.save_frequency=2", "train.keep_last=1"),
        *("tune.tile_size=28", "tune.crop_size=28", "tune.tune_every_iterations=3", "tune.knn.nb_knn=[1]"),
        *(*data, "tune.early_stopping.tracking=bacc_1"),
    ]


@pytest.fixture(autouse=True)
def scripted(monkeypatch):
    """Evaluations that give scores by iteration."""

    def give(tuner, model, iteration, rounds=None):
        return {"teacher.bacc_1": SCORES.get(iteration, 0.2)}

    monkeypatch.setattr(Tuner, "__call__", give)


def checkpoints(run: Path) -> list[str]:
    return sorted(path.name for path in (run / "checkpoints").iterdir())


def assert_best_is(run: Path, step: int) -> None:
    note = json.loads((run / "eval" / "best" / "best.json").read_text())
    assert note == {"iteration": step, "score": "teacher.bacc_1", "value": SCORES[step]}
    exported = torch.load(run / "eval" / "best" / "teacher_checkpoint.pth", weights_only=True)["teacher"]
    saved = SavedCheckpoint(run / "checkpoints" / f"step-{step:07d}", step).read_all()
    for name, weight in exported.items():
        assert torch.equal(weight, saved[f"model.teacher.{name}"]), name


def test_the_best_is_exported_and_its_checkpoint_kept(image_folder, tmp_path, command):
    output = tmp_path / "run"
    train(image_folder, output, *command)
    assert checkpoints(output) == ["step-0000003", "step-0000010"]
    assert_best_is(output, 3)


def test_a_better_one_takes_its_place(image_folder, tmp_path, command, monkeypatch):
    monkeypatch.setitem(SCORES, 9, 0.6)
    train(image_folder, tmp_path / "run", *command)
    assert checkpoints(tmp_path / "run") == ["step-0000009", "step-0000010"]
    assert_best_is(tmp_path / "run", 9)


def test_an_untrained_teacher_can_be_the_best(image_folder, tmp_path, command, monkeypatch):
    monkeypatch.setitem(SCORES, 0, 0.9)
    train(image_folder, tmp_path / "run", *command)
    assert checkpoints(tmp_path / "run") == ["step-0000010"]
    assert json.loads((tmp_path / "run" / "eval" / "best" / "best.json").read_text())["iteration"] == 0


def test_nothing_is_kept_if_so_asked(image_folder, tmp_path, command):
    train(image_folder, tmp_path / "run", *command, "tune.keep_best=false")
    assert checkpoints(tmp_path / "run") == ["step-0000010"]
    assert not (tmp_path / "run" / "eval" / "best").exists()


# Kills by the number of the save: 1 is that of step 3, 2 of step 4, 3 of step 8.
@pytest.mark.thorough  # 8 s
@pytest.mark.parametrize("plan", ["save.begin=kill@1", "retention.done=kill@1", "save.before_rename=kill@3"])
def test_kills_change_nothing(image_folder, tmp_path, command, plan):
    output = tmp_path / "run"
    line = arguments(image_folder, output, *command)
    assert run(line, tmp_path / "a", prepare=planned(plan)) == [KILLED]
    assert run(line, tmp_path / "b") == [0]
    assert checkpoints(output) == ["step-0000003", "step-0000010"]
    assert_best_is(output, 3)
    lines = (output / "results" / "tune.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 3, 6, 9, 10]


def test_a_kill_between_the_export_and_its_note(image_folder, tmp_path, command):
    output = tmp_path / "run"
    line = arguments(image_folder, output, *command)

    def killed_at_second_note(rank):
        write, notes = best_module.write_text, []

        def killing(path, text):
            notes.append(path)
            if len(notes) == 2:
                os.kill(os.getpid(), 9)
            write(path, text)

        best_module.write_text = killing

    assert run(line, tmp_path / "a", prepare=killed_at_second_note) == [KILLED]
    assert not (output / "eval" / "best" / "best.json").exists()
    assert run(line, tmp_path / "b") == [0]
    assert_best_is(output, 3)


def test_an_export_that_fails_ends_the_run_if_so_asked(image_folder, tmp_path, command, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(best_module, "write_text", full)
    train(image_folder, tmp_path / "a", *command)
    assert "could not be noted in" in (tmp_path / "a" / "logs" / "log.txt").read_text()
    with pytest.raises(best_module.SaveError, match=r"best.json: .*No space left"):
        train(image_folder, tmp_path / "b", *command, "train.on_save_error=stop")


@pytest.mark.parametrize("background", [False, True])
def test_a_state_names_the_checkpoints_that_stay(tmp_path, background):
    saver = Checkpointer(tmp_path, keep_last=1, background=background)
    for step, kept in ((1, {1}), (2, {1}), (3, {1}), (4, {4}), (5, {4}), (6, set())):
        saver.save(Snapshot({"weights": torch.zeros(4)}, {"step": step}, kept=frozenset(kept)), step)
        saver.finish()
        assert saver.steps() == sorted(kept | {step})
