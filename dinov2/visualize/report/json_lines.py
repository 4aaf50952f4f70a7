"""Files with one JSON object a line, whole or still being written."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from pathlib import Path
from typing import Any

import numpy as np

CHUNK = 4096  # lines that are held as Python objects at a time
_LARGEST = 2**62  # iteration

Row = dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """The numbers of a file by name, over n iterations.

    Attributes:
        iterations: (n,) int64, ascending, each once.
        values: (n,) float64 by name; NaN where a line lacks the name, infinity where its value is no finite number.
        damaged: lines that are no JSON object with an iteration.
    """

    iterations: np.ndarray = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    damaged: int = 0

    def __len__(self) -> int:
        return len(self.iterations)

    def last(self, name: str) -> float | None:
        """The newest value of a name, None where there is none."""
        values = self.values.get(name, np.empty(0))
        reported = values[~np.isnan(values)]
        return float(reported[-1]) if len(reported) else None


def read_rows(path: Path) -> Iterator[Row | None]:
    """The objects of a file, None for a line that is no JSON object; nothing if there is no such file.

    A last line without an end that cannot be read is being written, and left out.
    """
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            row = _parse(line)
            if row is not None or (line.endswith("\n") and line.strip()):
                yield row


def read_columns(path: Path) -> Columns:
    """The numbers of a file whose objects have an "iteration".

    Of lines of the same iteration, as where a crashed run has been resumed, the last one counts.
    """
    rows, parts, damaged = read_rows(path), [], 0
    while chunk := list(islice(rows, CHUNK)):
        good = [row for row in chunk if row is not None and _is_iteration(row.get("iteration"))]
        damaged += len(chunk) - len(good)
        if good:
            parts.append(_columns_of(good))
    return _join(parts, damaged) if parts else Columns(damaged=damaged)


def _parse(line: str) -> Row | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _is_iteration(value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < _LARGEST


def _columns_of(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """(rows,) by name, with the iterations among them."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    iterations = np.array([row["iteration"] for row in rows], dtype=np.int64)
    columns = {"iteration": iterations}
    for name, values in zip(names, _matrix(rows, names).T):
        if name != "iteration" and not np.isnan(values).all():
            columns[name] = values
    return columns


def _matrix(rows: Sequence[Row], names: Sequence[str]) -> np.ndarray:
    """(rows, names) float64."""
    try:
        matrix = np.array(list(map(itemgetter(*names, "iteration"), rows)), dtype=np.float64)[:, :-1]
    except (KeyError, TypeError, ValueError, OverflowError):
        return np.array([[_number(row[name]) if name in row else np.nan for name in names] for row in rows])
    matrix[~np.isfinite(matrix)] = np.inf
    return matrix


def _number(value: Any) -> float:
    """NaN for what is not a number, infinity for what is not a finite one."""
    try:
        number = float("inf" if value is None else value)
    except OverflowError:
        return np.inf
    except (TypeError, ValueError):
        return np.nan
    return number if np.isfinite(number) else np.inf


def _join(parts: Sequence[Mapping[str, np.ndarray]], damaged: int) -> Columns:
    iterations = np.concatenate([part["iteration"] for part in parts])
    order = np.argsort(iterations, kind="stable")
    ordered = iterations[order]
    kept = order[np.append(ordered[1:] != ordered[:-1], True)]
    names = list(dict.fromkeys(name for part in parts for name in part if name != "iteration"))
    values = {
        name: np.concatenate([part.get(name, np.full(len(part["iteration"]), np.nan)) for part in parts])[kept]
        for name in names
    }
    return Columns(iterations[kept], values, damaged)
