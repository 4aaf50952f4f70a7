"""How the group of a tile is known: from its path, by a pattern, or from a csv file."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2.data.group_names import group_of
from dinov2.data.tar_index.builder import are_images
from dinov2.data.tar_index.errors import SHOWN_NAMES, GroupError, LabelError, SelectionError, show_name, show_names
from dinov2.data.tar_index.labels import LabelColumns, LabelTable
from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.names import encoding_hint, plain_path
from dinov2.data.tar_index.selection import ambiguity


class GroupRule(Protocol):
    """Names the groups of tiles."""

    def names(self, chunk: MemberChunk, rows: NDArray[np.intp]) -> list[str]:
        """Names of the groups of the members (r,) of a chunk; what is not known is noted, and named anyhow."""

    def finish(self, members: Members) -> list[str]:
        """What a person should know though it is no error.

        Raises:
            UserError: the group of a tile is not known.
        """


class PathRule:
    """What a tile was cut from, as far as its path tells; see `group_of`."""

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}  # of the first tile of each group
        self._mixed: dict[str, str] = {}  # of the first tile elsewhere

    def names(self, chunk: MemberChunk, rows: NDArray[np.intp]) -> list[str]:
        """Names of the groups (r,)."""
        names = []
        for path in _texts(chunk, rows, plain=True):
            name, folder = group_of(path), path.rpartition("/")[0]
            if self._folders.setdefault(name, folder) != folder:
                self._mixed.setdefault(name, folder)
            names.append(name)
        return names

    def finish(self, members: Members) -> list[str]:
        """Warns of groups over several folders: if folders are slides, the rule is not the one for this archive."""
        if not self._mixed:
            return []
        name, folder = next(iter(self._mixed.items()))
        return [
            f"{len(self._mixed):,} of {len(self._folders):,} groups have tiles in several folders, such as "
            f"{show_name(name)} in {show_name(self._folders[name])} and {show_name(folder)}. That is right where the "
            "folders are classes; where they are slides, add --pattern '([^/]+)/[^/]*$'"
        ]


class PatternRule:
    """What a regular expression finds in the path: its first group, or without one the whole match."""

    def __init__(self, pattern: str) -> None:
        """Compile the expression.

        Raises:
            SelectionError: it is none.
        """
        try:
            self._pattern = re.compile(pattern)
        except (re.error, OverflowError, RecursionError) as error:
            raise SelectionError(f"--pattern {show_name(pattern)} is no regular expression: {error}.") from error
        self._unmatched: list[str] = []
        self._unmatched_count = 0

    def names(self, chunk: MemberChunk, rows: NDArray[np.intp]) -> list[str]:
        """Names of the groups (r,)."""
        return [self._name(path) for path in _texts(chunk, rows, plain=False)]

    def finish(self, members: Members) -> list[str]:
        """Raises GroupError if there were paths in which nothing was found."""
        if self._unmatched_count:
            raise GroupError(
                f"--pattern {show_name(self._pattern.pattern)} finds nothing in {self._unmatched_count:,} paths: "
                f"{show_names(self._unmatched, total=self._unmatched_count)}. Paths are searched as tar -tf lists them."
            )
        return []

    def _name(self, path: str) -> str:
        match = self._pattern.search(path)
        name = match[min(self._pattern.groups, 1)] if match else None
        if not name:
            self._unmatched_count += 1
            if len(self._unmatched) < SHOWN_NAMES:
                self._unmatched.append(path)
        return name or ""


class TableRule:
    """What a csv file says about a base name or member path."""

    def __init__(self, path: Path, *, columns: LabelColumns) -> None:
        """Read the table.

        Raises:
            LabelError: it is damaged or contradicts itself.
        """
        self._table = LabelTable(path, columns=columns)
        self._missing: list[bytes] = []
        self._missing_count = 0

    def names(self, chunk: MemberChunk, rows: NDArray[np.intp]) -> list[str]:
        """Names of the groups (r,)."""
        chosen = np.zeros(len(chunk.paths), bool)
        chosen[rows] = True
        tile = chosen | (are_images(chunk.bases) & (chunk.sizes > 0) & ~chunk.hidden)
        found = self._table.names.find(chunk.plain, chunk.bases, counted=tile)
        codes = self._table.look_up(found, selected=chosen)[rows]
        missing = rows[codes < 0]
        self._missing_count += len(missing)
        self._missing += [chunk.paths[i] for i in missing[: SHOWN_NAMES - len(self._missing)]]
        return [str(self._table.classes[code][0]) if code >= 0 else "" for code in codes.tolist()]

    def finish(self, members: Members) -> list[str]:
        """Raises LabelError if a tile has no row, or a row may mean several tiles."""
        shown = show_name(self._table.path)
        if self._missing_count:
            raise LabelError(
                f"{shown} has no row for {self._missing_count:,} of the tiles: "
                f"{show_names(self._missing, total=self._missing_count)}. Add them to the csv."
                f"{encoding_hint(self._table.path)}"
            )
        count = self._table.count_ambiguous()
        for most in {min(SHOWN_NAMES, count), count} - {0}:
            # None of them may be: the hits count earlier copies too, which were replaced under their path.
            if text := ambiguity(members, self._table.ambiguous(most), total=count):
                raise LabelError(f"{shown}: {text}")
        return []


def _texts(chunk: MemberChunk, rows: NDArray[np.intp], *, plain: bool) -> Iterator[str]:
    """Paths of the chosen members, without "./" in front if they are to be plain."""
    for i in rows.tolist():
        path = chunk.paths[i]
        yield (plain_path(path) if plain else path).decode("utf-8", "surrogateescape")
