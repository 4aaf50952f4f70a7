"""Cores and memory by what the machine, a scheduler or a container lends."""

from pathlib import Path

import pytest

from dinov2.utils import machine
from dinov2.utils.machine import free_memory, usable_cores

GIB = 1 << 30


@pytest.fixture
def lend(tmp_path, monkeypatch):
    """Control groups with some files, and a machine of 64 cores with 32 GiB free."""

    def make(own: str, files: dict[str, str]) -> None:
        (tmp_path / "cgroup").write_text(own)
        (tmp_path / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable: {32 * GIB // 1024} kB\n")
        for name, text in files.items():
            path = tmp_path / "groups" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)

    monkeypatch.setattr(machine, "CGROUPS", tmp_path / "groups")
    monkeypatch.setattr(machine, "OWN_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(machine, "MEMORY", tmp_path / "meminfo")
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: set(range(64)), raising=False)
    return make


@pytest.mark.parametrize(
    ("own", "files", "cores", "memory"),
    [
        ("0::/\n", {"cpu.max": "max 100000\n", "memory.max": "max\n"}, 64, 32 * GIB),
        (
            "0::/\n",
            {"cpu.max": "150000 100000\n", "memory.max": f"{GIB}\n", "memory.stat": "anon 1000\n"},
            2,
            GIB - 1000,
        ),
        # SLURM limits the job, and processes are in a step of it.
        ("0::/job/step\n", {"job/cpu.max": "400000 100000", "job/step/memory.max": f"{2 * GIB}"}, 4, 2 * GIB),
        (
            "4:memory:/d\n3:cpu,cpuacct:/d\n1:name=systemd:/\n",
            {
                "memory/d/memory.limit_in_bytes": str(GIB),
                "memory/d/memory.stat": "cache 999\nrss 1\ntotal_rss 24\n",
                "cpu,cpuacct/d/cpu.cfs_quota_us": "50000",
                "cpu,cpuacct/d/cpu.cfs_period_us": "100000",
            },
            1,
            GIB - 24,
        ),
        ("3:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 64, 32 * GIB),
    ],
    ids=["no limit", "a container", "a job", "first version", "first version without limit"],
)
def test_what_is_lent(lend, own, files, cores, memory):
    lend(own, files)
    assert (usable_cores(), free_memory()) == (cores, memory)


def test_affinity_counts(lend, monkeypatch):
    lend("0::/\n", {})
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda process: {3, 5, 8}, raising=False)
    assert usable_cores() == 3


def test_a_system_that_says_nothing(monkeypatch):
    for name in ("CGROUPS", "OWN_CGROUPS", "MEMORY"):
        monkeypatch.setattr(machine, name, Path("/nowhere"))
    assert usable_cores() >= 1
    assert free_memory() is None
