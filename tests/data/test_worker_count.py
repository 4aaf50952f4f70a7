"""No more workers than there are cores and memory for, with a word."""

import pytest

from dinov2.data import worker_count
from dinov2.data.worker_count import WORKER_BYTES, usable_workers


@pytest.fixture(autouse=True)
def machine(monkeypatch):
    """16 cores and memory for 10 workers with small batches."""
    monkeypatch.setattr(worker_count, "usable_cores", lambda: 16)
    monkeypatch.setattr(worker_count, "free_memory", lambda: 10 * WORKER_BYTES)
    worker_count._say.cache_clear()


@pytest.mark.parametrize(
    ("asked", "batch", "usable"),
    [(0, 0, 0), (8, 0, 8), (5000, 0, 10), (5000, WORKER_BYTES, 3), (4, 10**15, 1)],
)
def test_memory(asked, batch, usable, caplog):
    assert [usable_workers(asked, key="train.num_workers", batch_bytes=batch) for _ in range(2)] == [usable] * 2
    assert caplog.text.count(f"train.num_workers={asked}") == (usable < asked)


@pytest.mark.parametrize(("processes", "usable"), [(1, 16), (4, 4), (32, 1)])
def test_processes_of_a_machine_share_its_cores(processes, usable, monkeypatch, caplog):
    monkeypatch.setattr(worker_count, "free_memory", lambda: None)
    monkeypatch.setattr(worker_count, "get_local_size", lambda: processes)
    assert usable_workers(5000, key="--num-workers", batch_bytes=0) == usable
    assert f"--num-workers=5000: this process has {usable} cores" in caplog.text
