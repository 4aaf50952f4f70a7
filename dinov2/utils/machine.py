"""Cores and memory that this process may use: of the machine, and of what a scheduler or container lends of it."""

import os
from collections.abc import Iterator
from pathlib import Path

CGROUPS, OWN_CGROUPS, MEMORY = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"), Path("/proc/meminfo")


def usable_cores() -> int:
    """Cores by affinity and by the quota of control groups, 1 at least."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    for group in _groups():
        first = [*_numbers(group / "cpu.cfs_quota_us"), *_numbers(group / "cpu.cfs_period_us")]
        quota = _numbers(group / "cpu.max") or first
        if len(quota) == 2:  # "max" and -1 are no quota
            cores = min(cores, -(-quota[0] // quota[1]))
    return max(cores, 1)


def free_memory() -> int | None:
    """Bytes that processes may still take, by the machine and by control groups; None where nothing says."""
    found = [kibibytes * 1024 for kibibytes in _named(MEMORY, "MemAvailable:")]
    for group in _groups():
        limits = [*_numbers(group / "memory.max"), *_numbers(group / "memory.limit_in_bytes")]
        # Pages of files go when memory is short, so only what processes have made counts as taken.
        taken = [*_named(group / "memory.stat", "anon"), *_named(group / "memory.stat", "total_rss"), 0]
        found += [max(limit - taken[0], 0) for limit in limits]
    return min(found, default=None)


def _groups() -> Iterator[Path]:
    """Folders of the control groups that this process is in, of both versions, and those above them."""
    for line in _text(OWN_CGROUPS).splitlines():
        _, controllers, path = line.split(":", 2)
        folder = CGROUPS / controllers / path.lstrip("/")
        yield from (one for one in (folder, *folder.parents) if one.is_relative_to(CGROUPS))


def _numbers(path: Path) -> list[int]:
    return [int(word) for word in _text(path).split() if word.isdigit()]


def _named(path: Path, name: str) -> list[int]:
    """The numbers of the lines that begin with a name."""
    lines = [line.split() for line in _text(path).splitlines()]
    return [int(words[1]) for words in lines if words[:1] == [name]]


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
