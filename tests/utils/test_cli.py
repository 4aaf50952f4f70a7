"""How commands end: mistakes, signals, readers that are gone, and disks that are full."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from forks import exit_codes, forked, wait_until
from indexing import ROOT

from dinov2.errors import UserError
from dinov2.utils.atomic import temporary_path
from dinov2.utils.cli import ENDING, Parser, run_command

BUFFERED = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}


@pytest.fixture
def own_signals() -> Iterator[None]:
    """Commands of this process leave no handlers to the tests after."""
    before = {number: signal.getsignal(number) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("own_signals")
def test_commands_show_mistakes_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> int:
        raise UserError(
            "Caught UserError in DataLoader worker process 0.\nTraceback ...\nx.UserError: tile 3 is broken\n"
        )

    with pytest.raises(SystemExit) as found:
        run_command(fail)
    assert found.value.code == 2
    assert capsys.readouterr().err == "error: tile 3 is broken\n"
    with pytest.raises(SystemExit) as found:
        run_command(lambda: Path("x" * 300).exists())
    assert found.value.code == 2
    assert "the name is too long. Choose a shorter one" in capsys.readouterr().err
    with pytest.raises(SystemExit) as found:
        run_command(lambda: 0)
    assert found.value.code == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--config", "x", "--output_dir", "y"], "did you mean --config-file by --config?"),
        (["--output-dirr=y"], "did you mean --output_dir by --output-dirr?"),
        (["--output-dir", "y"], "did you mean --output_dir by --output-dir?"),
        (["--output_dir", "y", "--train.seed=3"], "settings are written without dashes: train.seed=3"),
        (["--output_dir", ""], "--output_dir has an empty value"),
        (["--output_dir="], "--output_dir= has an empty value"),
        (["--output_dir", "y", ""], "y has an empty value"),
    ],
)
def test_mistyped_options_name_the_ones_that_were_meant(
    words: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser(allow_abbrev=False)
    parser.add_argument("--config-file")
    parser.add_argument("--output_dir", required=True)
    parser.add_argument("opts", nargs="*")
    assert parser.parse_intermixed_args(["--output_dir", "y", "a.b=", "--", "z"]).opts[0] == "a.b="
    with pytest.raises(SystemExit):
        parser.parse_intermixed_args(words)
    assert told in capsys.readouterr().err


def wait_in(place: str, folder: Path) -> Callable[[], None]:
    """A command that has half a file and waits where an exception would go lost, or raises nothing."""

    class Goes:
        def __del__(self) -> None:
            signal.pause()

    def work() -> None:
        with temporary_path(folder / "result.bin") as temporary:
            temporary.write_bytes(b"half")
            if place == "handler of everything":
                try:
                    signal.pause()
                except BaseException:
                    signal.pause()
            elif place == "destructor":
                Goes()
            signal.pause()

    return work


@pytest.mark.parametrize("number", ENDING)
@pytest.mark.parametrize("place", ["work", "destructor", "handler of everything"])
def test_a_signal_ends_a_command_anywhere_with_one_line(number: signal.Signals, place: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    folder.mkdir()
    with forked(lambda rank: run_command(wait_in(place, folder)), logs=tmp_path / "logs") as [process]:
        wait_until(lambda: [path for path in folder.iterdir() if path.stat().st_size])
        os.kill(process.pid, number)
        assert exit_codes([process], 30) == [-number]
    assert list(folder.iterdir()) == []
    assert (tmp_path / "logs" / "rank0.txt").read_text() == f"stopped by {number.name}\n"


def test_ignored_signals_stay_ignored(tmp_path: Path) -> None:
    def work(rank: int) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # nohup
        run_command(lambda: os.kill(os.getpid(), signal.SIGHUP))

    with forked(work, logs=tmp_path) as processes:
        assert exit_codes(processes, 30) == [0]


@pytest.mark.parametrize("arguments", [["scripts/infer_entries.py", "--help"], ["scripts/verify_dataset.py", "--help"]])
def test_a_reader_that_is_gone_is_no_fault(arguments: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, cwd=ROOT, env=BUFFERED, stdout=writer, stderr=subprocess.PIPE, check=False)
    os.close(writer)
    assert (done.returncode, done.stderr) == (-signal.SIGPIPE, b"")


def test_what_cannot_be_printed_is_told() -> None:
    with Path("/dev/full").open("w") as full:
        command = [sys.executable, "scripts/infer_entries.py", "--help"]
        done = subprocess.run(command, cwd=ROOT, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "error: cannot write its output: the disk is full. Free some space, or write elsewhere.\n"
