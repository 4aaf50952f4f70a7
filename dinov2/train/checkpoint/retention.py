"""Which checkpoints stay."""

import re
from collections.abc import Collection, Iterable
from pathlib import Path

from dinov2.utils.atomic import remove, temporary_path
from dinov2.utils.faults import fault_point

_NAME = re.compile(r"step-(\d{7,})")


def checkpoint_path(folder: Path, step: int) -> Path:
    """Where the checkpoint after a number of steps is."""
    return folder / f"step-{step:07d}"


def steps_on_disk(folder: Path) -> list[int]:
    """Steps of all checkpoints in a folder, ascending."""
    if not folder.is_dir():
        return []
    names = (_NAME.fullmatch(path.name) for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    return sorted(int(name[1]) for name in names if name and name[0] == f"step-{int(name[1]):07d}")


def steps_to_retire(
    steps: Iterable[int], newest: int, *, keep_last: int, keep_every: int | None, kept: Collection[int] = ()
) -> list[int]:
    """Steps whose checkpoints go when the one of step `newest` is complete.

    Checkpoints of later steps are damaged: otherwise the run had gone on from them. They neither count nor go.

    Args:
        keep_last: how many of the newest stay; 0: all.
        keep_every: those of its multiples stay for good.
        kept: others that the newest one asks to keep.
    """
    until_now = sorted(step for step in steps if step <= newest)
    old = until_now[:-keep_last] if keep_last else []
    return [step for step in old if step not in kept and (not keep_every or step % keep_every)]


def retire(folder: Path, step: int) -> None:
    """Remove a checkpoint; it stops to be one before the first of its files goes."""
    path = checkpoint_path(folder, step)
    with temporary_path(path) as doomed:
        fault_point("retention.before_rename")
        path.rename(doomed)
        fault_point("retention.before_removal")
        remove(doomed)
    fault_point("retention.done")
