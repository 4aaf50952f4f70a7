"""A fault at every point of a save: killed there, or an error there; nothing complete is lost."""

import errno
import resource
import subprocess
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from crashes import STEPS, Outcome, in_parallel, outcome, planned, report_every_step, run, training

from dinov2.errors import ExitCode
from dinov2.train import loop as loop_module
from dinov2.train.checkpoint import Checkpointer, SavedCheckpoint
from dinov2.utils.faults import FAULT_POINTS

KILLED = -9
FAST = ("train.num_workers=0",)
THIRD_SAVE, SHORT_STEPS = 6, 8
SHORT = (*FAST, f"optim.max_iter={SHORT_STEPS}", "evaluation.eval_period_iterations=0")


@pytest.fixture
def undisturbed(image_folder, tmp_path):
    assert run(training(image_folder, tmp_path / "whole", *FAST), tmp_path / "logs") == [0]
    return outcome(tmp_path / "whole")


def log(folder: Path) -> str:
    return (folder / "rank0.txt").read_text()


@pytest.mark.thorough  # 20 s
def test_killed_at_every_point(image_folder, tmp_path):
    assert run(training(image_folder, tmp_path / "whole", *SHORT), tmp_path / "logs") == [0]
    expected = outcome(tmp_path / "whole", SHORT_STEPS)
    for point, (steps, found) in zip(FAULT_POINTS, in_parallel(partial(kill_at, image_folder, tmp_path), FAULT_POINTS)):
        new = FAULT_POINTS.index(point) >= FAULT_POINTS.index("save.after_rename")  # the checkpoint counts from here on
        assert steps == (THIRD_SAVE if new else THIRD_SAVE - 2), point
        assert found == expected, point
    print(
        f"\nSIGKILL at each of {len(FAULT_POINTS)} points of a save: all go on from the newest complete step, bit-exact"
    )


def kill_at(images: Path, folder: Path, point: str) -> tuple[int, Outcome]:
    """Kill a training at a point of its third save, the first that retires a checkpoint; from which step it goes on,
    and how it ends."""
    output, logs = folder / point, folder / f"{point}.logs"
    # Three files a save.
    occurrence = {"file.before_fsync": 8}.get(point, 1 if point.startswith("retention") else 3)
    arguments = training(images, output, *SHORT)
    assert run(arguments, logs, prepare=planned(f"{point}=kill@{occurrence}")) == [KILLED], point
    newest = Checkpointer(output / "checkpoints").load_newest()
    assert newest is not None
    assert run(arguments, logs) == [0], point
    assert f"going on from {newest.path}" in log(logs)
    return newest.values["iteration"], outcome(output, SHORT_STEPS)


@pytest.mark.thorough  # 5 s
def test_an_error_at_every_point(image_folder, tmp_path, undisturbed):
    for number, error in enumerate((errno.ENOSPC, errno.EIO, errno.EROFS)):
        points = FAULT_POINTS[number::3]  # every point once, errors in turn
        plan = ",".join(f"{point}={errno.errorcode[error]}@2" for point in points)
        folder = tmp_path / errno.errorcode[error]
        arguments = training(image_folder, folder / "run", *FAST, "train.save_frequency=0.5")
        assert run(arguments, folder, prepare=planned(plan)) == [0]
        text = log(folder)
        for point in points:
            assert f"made on purpose at {point}" in text, point
        assert "Training goes on" in text
        assert outcome(folder / "run").state == undisturbed.state
        assert not list((folder / "run" / "checkpoints").glob(".*"))
    print(f"\nENOSPC, EIO and EROFS at {len(FAULT_POINTS)} points of a save: training goes on, the next save works")


def full_from_step(first: int, last: int, ranks: tuple[int, ...]) -> Callable[[int], None]:
    """No file on some ranks gets larger than 100 kB while steps `first` to `last` are taken."""

    def prepare(rank: int) -> None:
        report_every_step(rank)
        step, (unlimited, _) = loop_module.train_step, resource.getrlimit(resource.RLIMIT_FSIZE)

        def limited(cfg, state, *args, **options):
            size = 100_000 if first <= state.iteration <= last and rank in ranks else unlimited
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, unlimited))
            return step(cfg, state, *args, **options)

        loop_module.train_step = limited

    return prepare


@pytest.mark.thorough  # 8 s
@pytest.mark.parametrize("ranks", [(0,), (1,), (0, 1)])
def test_a_disk_that_is_full_for_a_while(image_folder, tmp_path, ranks):
    arguments = training(image_folder, tmp_path / "run", *FAST, "train.batch_size_per_gpu=2", "train.keep_last=0")
    assert run(arguments, tmp_path, ranks=2, prepare=full_from_step(4, 8, ranks)) == [0, 0]
    steps = Checkpointer(tmp_path / "run" / "checkpoints").steps()
    assert steps == [2, 4, 10, 12]  # those of steps 6 and 8 could not be saved
    assert not list((tmp_path / "run" / "checkpoints").glob(".*"))
    for step in steps:
        SavedCheckpoint(tmp_path / "run" / "checkpoints" / f"step-{step:07d}", step)
    for name in ("log.txt", "log.txt.rank1"):
        text = (tmp_path / "run" / "logs" / name).read_text()
        assert "step-0000006 could not be saved: [Errno 27] File too large" in text
    print(f"\nno space on rank {ranks} for two of six saves: the others are whole, no rank waits")


def test_a_disk_that_stays_full_ends_the_run_with_an_error(image_folder, tmp_path):
    arguments = training(image_folder, tmp_path / "run", *FAST)
    everything = full_from_step(5, STEPS, (0,))
    assert run(arguments, tmp_path, prepare=everything) == [ExitCode.FAILED]
    assert "error: the teacher could not be exported" in log(tmp_path)
    assert Checkpointer(tmp_path / "run" / "checkpoints").load_newest().values["iteration"] == 4
    arguments.append("train.on_save_error=stop")
    assert run(arguments, tmp_path, prepare=everything) == [ExitCode.FAILED]
    assert "error: the checkpoint" in log(tmp_path)
    assert run(arguments, tmp_path) == [0]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_disk_that_is_too_small(image_folder, tmp_path, small_disk, undisturbed):
    arguments = training(image_folder, small_disk / "run", *FAST, "evaluation.eval_period_iterations=0")
    assert run(arguments, tmp_path / "small") == [ExitCode.FAILED]
    text = log(tmp_path / "small")
    assert "less than two more checkpoints" in text
    assert "No space left on device" in text
    assert not list((small_disk / "run" / "checkpoints").glob(".*"))
    assert Checkpointer(small_disk / "run" / "checkpoints").load_newest() is not None
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    assert run(arguments, tmp_path / "large") == [0]
    assert outcome(small_disk / "run").state == undisturbed.state
