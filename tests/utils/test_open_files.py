"""A low limit on open files is raised where that is allowed, or told before the work."""

import errno
import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from pool_work import double

from dinov2.data.file_reader import patiently
from dinov2.data.worker_setup import WorkerSetup
from dinov2.errors import UserError
from dinov2.utils import open_files
from dinov2.utils.open_files import need_open_files
from dinov2.utils.pool import in_order

LIMIT = resource.RLIMIT_NOFILE


@pytest.fixture
def limits() -> Iterator[list[tuple[int, int]]]:
    """Puts the limit back."""
    before = resource.getrlimit(LIMIT)
    yield [before]
    resource.setrlimit(LIMIT, before)


def test_a_soft_limit_is_raised(limits: list[tuple[int, int]]) -> None:
    hard = limits[0][1]
    low = len(list(Path("/dev/fd").iterdir())) + 100
    resource.setrlimit(LIMIT, (low, hard))
    need_open_files(20, "few")
    assert resource.getrlimit(LIMIT) == (low, hard)
    need_open_files(300, "many")
    assert low + 200 <= resource.getrlimit(LIMIT)[0] <= low + 400


@pytest.mark.parametrize("begin", [lambda: list(in_order(double, range(9), workers=64)), lambda: WorkerSetup(64)])
def test_a_hard_limit_is_told_before_the_work(begin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(open_files.resource, "getrlimit", lambda which: (64, 64))
    with pytest.raises(UserError, match=r"64 .*workers need about \d+ open files, and the limit is 64.*ulimit -n 4096"):
        begin()


def test_no_tile_is_blamed_for_too_many_files() -> None:
    def read() -> bytes:
        raise OSError(errno.EMFILE, "Too many open files")

    with pytest.raises(UserError, match="too many files are open, and the limit is"):
        patiently(read)
