"""One writer at a time, with the locks of the file system or without."""

import errno
import fcntl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from dinov2.errors import UserError
from dinov2.utils import locks


def no_flock(*_: object) -> NoReturn:
    raise OSError(errno.ENOLCK, "No locks available")


@pytest.mark.parametrize("has_locks", [True, False])
def test_of_many_writers_one_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool) -> None:
    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(locks, "PAUSE", 0.001)
    file = tmp_path / "count"
    file.write_text("0")

    def add(_: int) -> None:
        for _ in range(5):
            with locks.locked(tmp_path / ".lock"):
                file.write_text(str(int(file.read_text()) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))
    assert file.read_text() == "40"
    assert {path.name for path in tmp_path.iterdir()} <= {"count", ".lock"}


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from dinov2.utils.locks import locked\n"
        "with locked(Path(sys.argv[1])): os._exit(9)"
    )
    lock = tmp_path / ".lock"
    assert subprocess.run([sys.executable, "-c", code, lock], check=False).returncode == 9 and lock.exists()
    with locks.locked(lock):
        pass
    assert not lock.exists()


@pytest.mark.parametrize("has_locks", [True, False])
def test_waiting_ends_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_locks: bool) -> None:
    if not has_locks:
        monkeypatch.setattr(fcntl, "flock", no_flock)
    monkeypatch.setattr(locks, "PATIENCE", 0.05)
    with (
        locks.locked(tmp_path / ".lock"),
        pytest.raises(UserError, match=r"\.lock\.held"),
        locks.locked(tmp_path / ".lock"),
    ):
        pass
