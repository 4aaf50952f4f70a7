"""`training_metrics.json`: one JSON object a line, each with its iteration, and files like it."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

METRICS_FILE = "training_metrics.json"


def last_iteration(path: Path) -> int:
    """The iteration of the last whole line; -1 without one."""
    return max((iteration for iteration, _ in _lines(path)), default=-1)


def truncate_metrics(path: Path, iteration: int) -> None:
    """Cut a metrics file off at the first line of an iteration or a later one, or that a crash has cut.

    The file is shortened in place, so that a crash in the middle of this loses nothing.
    """
    if not path.is_file():
        return
    kept = 0  # bytes
    for found, end in _lines(path):
        if found >= iteration:
            break
        kept = end
    os.truncate(path, kept)


def _lines(path: Path) -> Iterator[tuple[int, int]]:
    """The iteration of each line and where it ends, in bytes, up to the first line that a crash has cut."""
    if not path.is_file():
        return
    end = 0
    with path.open("rb") as file:
        for line in file:
            end += len(line)
            try:
                iteration = json.loads(line)["iteration"]
            except ValueError:
                return
            if not line.endswith(b"\n"):
                return
            yield iteration, end
