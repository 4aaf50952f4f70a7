"""Going on: at any step, with any number of workers, as often as need be, and never two at a time."""

import json
import os
import time

import pytest
from crashes import STEPS, Outcome, has_taken, outcome, planned, report_every_step, run, training
from forks import exit_codes, forked, run_training, wait_until
from runs import metrics_of

from dinov2.errors import ExitCode
from dinov2.train import loop as loop_module
from dinov2.train.checkpoint import Checkpointer, Snapshot
from dinov2.train.checkpoint.retention import steps_on_disk

KILLED = -9
FAST = ("train.num_workers=0", "evaluation.eval_period_iterations=0")
EVERY_STEP = (*FAST, "train.save_frequency=0.5")


@pytest.fixture
def undisturbed(image_folder, tmp_path) -> Outcome:
    assert run(training(image_folder, tmp_path / "whole", *FAST), tmp_path / "logs") == [0]
    return outcome(tmp_path / "whole")


def killed_in_step(step: int):
    """A preparation that kills the training in the middle of a step."""

    def prepare(rank: int) -> None:
        report_every_step(rank)
        take_step = loop_module.train_step

        def killing(cfg, state, *args, **options):
            if state.iteration == step:
                os.kill(os.getpid(), 9)
            return take_step(cfg, state, *args, **options)

        loop_module.train_step = killing

    return prepare


def test_any_number_of_workers(image_folder, tmp_path, undisturbed):
    """Four parts of a training, with 0, 1 and 2 workers and another prefetch each."""
    output = tmp_path / "run"
    for part, workers in enumerate((0, 1, 2, 0), start=1):
        arguments = training(image_folder, output, *FAST, f"train.num_workers={workers}")
        prepare = killed_in_step(3 * part) if part < 4 else report_every_step
        assert run(arguments, tmp_path / str(part), prepare=prepare) == [KILLED if part < 4 else 0]
    assert outcome(output) == undisturbed
    print("\n0 -> 1 -> 2 -> 0 loader workers: bit-exact")


@pytest.mark.thorough  # 8 s
def test_restarts_at_every_place_of_an_epoch(image_folder, tmp_path, undisturbed):
    """24 tiles make an epoch of six steps: restarts before the first step, five in an epoch, at its end, and in the
    last step."""
    output = tmp_path / "run"
    arguments = training(image_folder, output, *EVERY_STEP)
    for number, step in enumerate((0, 1, 2, 3, 4, 5, 6, STEPS - 1)):
        assert run(arguments, tmp_path / str(number), prepare=killed_in_step(step)) == [KILLED]
    assert run(arguments, tmp_path / "last") == [0]
    found = outcome(output)
    assert (found.state, found.metrics) == (undisturbed.state, undisturbed.metrics)
    print("\n8 restarts, from the first to the last step: bit-exact")


def test_a_finished_run_takes_no_more_steps(image_folder, tmp_path):
    arguments = training(image_folder, tmp_path / "run", *FAST)
    # Killed when the last checkpoint was complete, but before the program could end.
    assert run(arguments, tmp_path / "a", prepare=planned("retention.done=kill@4")) == [KILLED]
    before = outcome(tmp_path / "run")
    assert run(arguments, tmp_path / "b", prepare=killed_in_step(STEPS)) == [0]
    assert "is finished (12 of 12 iterations)" in (tmp_path / "b" / "rank0.txt").read_text()
    assert outcome(tmp_path / "run") == before
    assert [line["iteration"] for line in metrics_of(tmp_path / "run")] == list(range(STEPS))


def test_what_a_kill_after_the_last_save_left_goes(image_folder, tmp_path):
    arguments = training(image_folder, tmp_path / "run", *FAST)
    assert run(arguments, tmp_path / "a", prepare=planned("retention.before_rename=kill@4")) == [KILLED]
    kept = steps_on_disk(tmp_path / "run" / "checkpoints")
    assert kept[-1] == STEPS
    assert run(arguments, tmp_path / "b") == [0]
    assert steps_on_disk(tmp_path / "run" / "checkpoints") == kept[1:]


def test_a_line_of_metrics_cut_by_a_crash_is_written_again(image_folder, tmp_path, undisturbed):
    output = tmp_path / "run"
    arguments = training(image_folder, output, *FAST)
    assert run(arguments, tmp_path / "a", prepare=killed_in_step(7)) == [KILLED]
    path = output / "training_metrics.json"
    lines = path.read_text().splitlines(keepends=True)
    assert len(lines) == 7  # of steps 0 to 6; the checkpoint is of six steps
    path.write_text("".join(lines) + lines[6][:20])
    assert run(arguments, tmp_path / "b") == [0]
    assert outcome(output) == undisturbed


@pytest.mark.thorough  # 6 s
def test_scores_are_neither_lost_nor_repeated(image_folder, tmp_path):
    sets = [f'tune.{name}_dataset_path=ImageFolder:root="{image_folder}"' for name in ("query", "test")]
    tune = (*sets, "tune.tile_size=28", "tune.crop_size=28", "tune.knn.nb_knn=[1]", "tune.tune_every_iterations=3")
    arguments = training(image_folder, tmp_path / "whole", *FAST, *tune)
    assert run(arguments, tmp_path / "logs") == [0]
    arguments = training(image_folder, tmp_path / "run", *FAST, *tune)
    for number, step in enumerate((0, 4, 9, 11)):
        assert run(arguments, tmp_path / str(number), prepare=killed_in_step(step)) == [KILLED]
    scores = tmp_path / "run" / "results" / "tune.jsonl"
    scores.write_text(scores.read_text() + '{"iteration": 12, "teac')
    assert run(arguments, tmp_path / "last") == [0]
    assert outcome(tmp_path / "run") == outcome(tmp_path / "whole")
    lines = scores.read_text()
    assert lines == (tmp_path / "whole" / "results" / "tune.jsonl").read_text()
    assert [json.loads(line)["iteration"] for line in lines.splitlines()] == [0, 3, 6, 9, 12]


def test_retention_over_twenty_restarts(tmp_path):
    day_ago = time.time() - 90_000
    for restart in range(20):
        checkpointer = Checkpointer(tmp_path, keep_last=3, keep_every=50)
        found = checkpointer.load_newest()
        step = found.values["step"] if found else 0
        for _ in range(2):
            step += 5
            checkpointer.save(Snapshot({}, {"step": step}), step)
        leftover = tmp_path / f".step-{step:07d}.node{restart}.1.0123abcd.tmp"  # of a job that was killed elsewhere
        leftover.mkdir()
        if restart % 2:
            os.utime(leftover, (day_ago, day_ago))
    checkpointer.save(Snapshot({}, {"step": 205}), 205)
    assert checkpointer.steps() == [50, 100, 150, 195, 200, 205]
    assert len(list(tmp_path.glob(".*"))) == 10  # those that are less than a day old
    print("\n20 restarts with keep_last 3 and keep_every 50: exactly the promised checkpoints")


def test_a_second_job_in_a_folder_is_refused(image_folder, tmp_path):
    arguments = training(image_folder, tmp_path / "run", *FAST, "optim.max_iter=100000")
    with forked(run_training, arguments, report_every_step, logs=tmp_path / "first") as (first,):
        wait_until(lambda: has_taken(2, first, tmp_path / "first"))
        with forked(run_training, arguments, logs=tmp_path / "second") as second:
            assert exit_codes(second, 60) == [ExitCode.MISTAKE]
        message = (tmp_path / "second" / "rank0.txt").read_text()
        assert f"belongs to a run that goes on: process {first.pid} on " in message
        lines = (tmp_path / "run" / "training_metrics.json").read_bytes().count(b"\n")
        wait_until(lambda: (tmp_path / "run" / "training_metrics.json").read_bytes().count(b"\n") > lines)
        first.kill()
        first.join()
        with forked(run_training, arguments, report_every_step, logs=tmp_path / "third") as (third,):
            wait_until(lambda: has_taken(1, third, tmp_path / "third"))
            assert third.exitcode is None
