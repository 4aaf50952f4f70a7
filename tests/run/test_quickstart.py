"""The quick start on a user's folder, shortened, and how it splits tiles."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from forks import exit_codes, forked, is_running, wait_until
from PIL import Image

from dinov2.errors import UserError
from dinov2.run import quickstart
from dinov2.run.quickstart import get_args_parser, main
from dinov2.run.tile_sets import tiles_of_folder, write_tile_sets
from dinov2.utils.cli import run_command

SHORT = ["optim.max_iter=3", "train.batch_size_per_gpu=4", "train.num_workers=0", "tune.tune_every_iterations=2"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two classes of four photographs with three tiles each."""
    rng = np.random.default_rng(0)
    for name in ("x", "y"):
        (tmp_path / "my tiles" / name).mkdir(parents=True)
        for photograph in range(4):
            for number in range(3):
                pixels = rng.integers(0, 256, (40, 40, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "my tiles" / name / f"photo{photograph}_{number:03d}.png")
    return tmp_path / "my tiles"


def test_on_labelled_tiles(folder, tmp_path, capfd):
    output = tmp_path / "out"
    assert (
        main(
            get_args_parser().parse_intermixed_args(
                ["--data", str(folder), "--output", str(output), "--seed", "3", *SHORT]
            )
        )
        == 0
    )
    summary = json.loads((output / "summary.json").read_text())
    assert set(summary) == {"knn_untrained", "knn_trained", "loss_first", "loss_last", "tiles_per_second", "seconds"}
    assert 0 <= summary["knn_trained"] <= 1
    assert summary["loss_first"] > 0
    assert Image.open(output / "figures" / "scores.png").size[0] > 500
    assert "Training report" in (output / "report.html").read_text()
    printed = capfd.readouterr().out
    assert "$ tar -chf" in printed
    assert "20-NN balanced accuracy" in printed
    assert "train.seed=3" in printed


@pytest.mark.thorough  # 10 s
def test_on_tiles_without_classes(folder, tmp_path):
    output = tmp_path / "out"
    main(get_args_parser().parse_intermixed_args(["--data", str(folder / "x"), "--output", str(output), *SHORT]))
    summary = json.loads((output / "summary.json").read_text())
    assert summary["knn_untrained"] is None
    assert summary["knn_trained"] is None
    assert (output / "report.html").is_file()


def test_photographs_are_never_split(folder):
    tiles = tiles_of_folder(folder, seed=0)
    splits = {}
    for tile in tiles:
        splits.setdefault(tile.name.split("__")[1].rpartition("_")[0], set()).add(tile.splits)
    assert sorted(map(len, splits.values())) == [1, 1, 1, 1]
    assert sum(("test",) in found for found in splits.values()) == 1
    assert {tile.splits for tile in tiles} == {("test",), ("pretrain", "query")}


def test_tiles_of_unknown_slides_are_held_out_with_a_warning(tmp_path, caplog):
    for number in range(8):
        path = tmp_path / "AB"[number % 2] / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (8, 8)).save(path)
    assert sum(tile.splits == ("test",) for tile in tiles_of_folder(tmp_path, seed=0)) == 2
    assert "slides are not known: 8 of 8 tiles have no slide in their path" in caplog.text


def test_names_stay_unique(folder, tmp_path):
    write_tile_sets(tiles_of_folder(folder, seed=0), tmp_path / "sets")
    links = list((tmp_path / "sets" / "pretrain").iterdir()) + list((tmp_path / "sets" / "downstream").iterdir())
    assert len({link.name for link in links}) == 24
    assert all(link.resolve().is_file() for link in links)
    header, first, *_ = (tmp_path / "sets" / "labels.csv").read_text().splitlines()
    assert (header, first) == ("filename,label,class", "x__photo0_000.png,0,x")


def test_folders_that_cannot_work(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        tiles_of_folder(tmp_path / "none", seed=0)
    with pytest.raises(UserError, match="no images"):
        tiles_of_folder(tmp_path, seed=0)


def test_files_of_others_are_left_alone(folder, tmp_path):
    (tmp_path / "work" / "data").mkdir(parents=True)
    (tmp_path / "work" / "data" / "precious.txt").write_text("")
    for data, output in ((folder, tmp_path / "work"), (folder, folder.parent)):
        with pytest.raises(UserError, match="--output|--data"):
            main(get_args_parser().parse_intermixed_args(["--data", str(data), "--output", str(output), *SHORT]))
    assert (tmp_path / "work" / "data" / "precious.txt").is_file()
    assert len(list(folder.rglob("*.png"))) == 24


def test_a_failing_step_ends_with_its_message(folder, tmp_path):
    command = [sys.executable, "dinov2/run/quickstart.py", "--data", str(folder), "--output", str(tmp_path / "out")]
    found = subprocess.run(
        [*command, "optim.max_itr=3"], capture_output=True, text=True, timeout=120, cwd=Path(__file__).parents[2]
    )
    assert found.returncode == 2
    assert "did you mean optim.max_iter" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_the_program_that_runs(number, tmp_path):
    started = tmp_path / "started"
    code = f"import os, time; open({str(started)!r}, 'w').write(str(os.getpid())); time.sleep(120)"

    def work(rank: int) -> None:
        run_command(lambda: quickstart.run("-c", f"import signal; signal.signal(2, signal.SIG_DFL); {code}"))

    with forked(work, logs=tmp_path / "logs") as [process]:
        child = int(wait_until(lambda: started.exists() and started.read_text()))
        os.kill(process.pid, number)
        assert exit_codes([process], 30) == [-number if number == signal.SIGKILL else 128 + number]
        wait_until(lambda: not is_running(child))


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["/tiles"], "argument '/tiles' is not understood"),
        (["optim.max_itr=3"], "did you mean optim.max_iter"),
        (["--data", __file__], "is no folder"),
        (["--data", f"{__file__}/tiles"], "does not exist"),
    ],
)
def test_mistakes_are_told_before_tiles_are_drawn(words, told, tmp_path):
    with pytest.raises(UserError, match=told):
        main(get_args_parser().parse_intermixed_args([*words, "--output", str(tmp_path / "out")]))
    assert not (tmp_path / "out").exists()
