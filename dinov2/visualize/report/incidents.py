"""Tiles that could not be used and steps that were not taken, as tables."""

import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

from .json_lines import Row
from .run_folder import Run, read_object
from .table import Table

SHOWN = 20  # rows of a table
MOST_GROUPS = 10  # archives, reasons
# What differs between tiles with the same fault: pairs of hexadecimal digits, and words with a digit.
_PARTICULAR = re.compile(r"\b[0-9a-f]{2}(?: [0-9a-f]{2})+\b|(?<![\w-])[0-9][\w,.]*\b|\b[0-9a-f]{8}\b")


def bad_tile_tables(run: Run) -> list[Table]:
    """How many tiles could not be used by archive and by reason, and the first of them."""
    tiles = run.bad_tiles
    if not tiles:
        return []
    reasons = (_PARTICULAR.sub("#", str(tile.get("reason", ""))) for tile in tiles)
    first = [
        tuple(str(tile.get(name, "")) for name in ("tile", "archive", "member", "reason", "replaced_by"))
        for tile in tiles[:SHOWN]
    ]
    return [
        _counts("By archive", "archive", (str(tile.get("archive", "")) for tile in tiles)),
        _counts("By reason, with # for what differs between tiles", "reason", reasons),
        Table(
            f"The first {len(first)} of {len(tiles):,}", ("tile", "archive", "member", "reason", "replaced by"), first
        ),
    ]


def nonfinite_tables(run: Run) -> list[Table]:
    """The steps that gave no finite loss or gradient."""
    shown = [_nonfinite_row(path.name, read_object(path)) for path in run.nonfinite[:SHOWN]]
    header = ("iteration", "what was done", "not finite", "parameters with such gradients", "tiles with such values")
    caption = f"The first {len(shown)} of {len(run.nonfinite):,}; each has a file in results/ with all tiles and losses"
    return [Table(caption, (*header, "file"), shown)] if shown else []


def _counts(caption: str, name: str, values: Iterable[str]) -> Table:
    counts = Counter(values).most_common()
    rows = [(value, f"{count:,}") for value, count in counts[:MOST_GROUPS]]
    rest = sum(count for _, count in counts[MOST_GROUPS:])
    if rest:
        rows.append((f"{len(counts) - MOST_GROUPS:,} others", f"{rest:,}"))
    return Table(caption, (name, "tiles"), rows)


def _nonfinite_row(file: str, found: Row) -> tuple[str, ...]:
    """A file of `train.evidence` in words; what it lacks stays empty."""
    wrong = [f"{name} = {value}" for name, value in _items(found.get("means")) if isinstance(value, str)]
    ranks = [rank for rank in _list(found.get("ranks")) if isinstance(rank, dict)]
    parameters = dict.fromkeys(str(name) for rank in ranks for name in _list(rank.get("first_of_them")))
    tiles = [
        str(tile.get("name", tile.get("tile", "")))
        for rank in ranks
        for batch in _list(rank.get("batches"))
        for tile in _list(dict(_items(batch)).get("tiles"))
        if isinstance(tile, dict) and tile.get("nonfinite")
    ]
    done = {"skip": "left out", "stop": "stopped"}.get(str(found.get("policy")), "")
    return str(found.get("iteration", "")), done, ", ".join(wrong), _few(parameters), _few(tiles), file


def _few(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:3]) + (" ..." if len(listed) > 3 else "")


def _items(value: Any) -> list[tuple[str, Any]]:
    return list(value.items()) if isinstance(value, dict) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
