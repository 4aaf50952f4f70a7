"""Keep and remove lists: which tiles of an archive go into an index."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import SHOWN_NAMES, SelectionError, show_name, show_names
from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.names import NameTable, composed, encoding_hint, matched_as, read_list

SHOWN_MEMBERS = 20


class Selection:
    """Tiles named by one list, or all of them without a list. An empty keep list keeps nothing."""

    def __init__(self, keep: Path | None, remove: Path | None):
        self._path = keep or remove
        self._keeps = keep is not None
        self._table = NameTable(read_list(self._path)) if self._path else None

    def select(self, chunk: MemberChunk, *, tile: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Whether the list lets each member through, (m,) bool.

        Args:
            chunk: the members (m).
            tile: (m,) whether the member can be a tile at all.
        """
        if self._table is None:
            return np.ones(len(tile), bool)
        by_base, by_path = self._table.find(chunk.plain, chunk.bases, counted=tile)
        named = (by_base >= 0) | (by_path >= 0)
        return named if self._keeps else ~named

    def finish(self, members: Members) -> list[str]:
        """Warnings about names that matched nothing.

        Raises:
            SelectionError: a name stands for several members.
        """
        if self._table is None or self._path is None:
            return []
        several = np.flatnonzero(self._table.hits > 1)
        if len(several):
            names = _names_at(self._path, several[:SHOWN_NAMES].tolist())
            raise SelectionError(f"the list {show_name(self._path)}: {ambiguity(members, names, total=len(several))}")
        unmatched = self._table.unmatched()
        if not len(unmatched):
            return []
        names = _names_at(self._path, unmatched[:SHOWN_NAMES].tolist())
        hint = encoding_hint(self._path)
        return [
            f"{len(unmatched):,} names of {show_name(self._path)} match no tile: "
            f"{show_names(names, total=len(unmatched))}{hint and '.' + hint}"
        ]


def ambiguity(members: Members, names: Sequence[bytes], *, total: int) -> str:
    """Why these names cannot be used: the members that each of them stands for, found by walking the archive again.

    Returns:
        Nothing if no name stands for more than one path.
    """
    shared: dict[bytes, list[bytes]] = {name: [] for name in matched_as(list(names))}
    for chunk in members:
        for path, *keys in zip(chunk.paths, composed(chunk.bases), composed(chunk.plain), strict=True):
            for key in shared.keys() & keys:
                if path not in shared[key]:
                    shared[key].append(path)
    several = {name: paths for name, paths in shared.items() if len(paths) > 1}
    if not several:
        return ""
    total -= len(shared) - len(several)
    shown = list(several.items())[:SHOWN_NAMES]
    listed = "".join(f"\n  {show_name(name)}: {show_names(paths)}" for name, paths in shown)
    more = f"\n  and {total - len(shown):,} more names" if total > len(shown) else ""
    return (
        f"{total:,} of its names stand for several members, so it is not known which are meant:{listed}{more}\n"
        "Write the member paths (as tar -tf lists them) instead of base names."
    )


def _names_at(path: Path, rows: list[int]) -> list[bytes]:
    """The names in these rows, read from the list again."""
    found, first = [], 0
    for names in read_list(path):
        found += [names[row - first] for row in rows if first <= row < first + len(names)]
        first += len(names)
    return found
