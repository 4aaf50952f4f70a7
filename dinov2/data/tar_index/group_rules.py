"""How the group of a tile is known: from its path, by a pattern, or from a csv file."""

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2.data.group_names import SlideNames, check_slides
from dinov2.data.groups import UnknownGroupsError
from dinov2.data.tables import is_missing
from dinov2.data.tar_index.builder import are_images
from dinov2.data.tar_index.errors import SHOWN_NAMES, GroupError, LabelError, SelectionError, show_name, show_names
from dinov2.data.tar_index.labels import LabelColumns, LabelTable
from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.names import encoding_hint, plain_path
from dinov2.data.tar_index.selection import ambiguity
from dinov2.data.tile_paths import one_line


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
    """The slide that a tile was cut from, as far as paths tell; see `SlideNames`."""

    def __init__(self, tar: Path) -> None:
        """Begin with nothing seen: `look_at` all tiles, and `decide`, before any is named."""
        self._slides = SlideNames(tar.name)
        self._sizes: Counter[str] = Counter()
        self._nameless = 0

    def look_at(self, chunk: MemberChunk) -> None:
        """Take note of the paths of all tiles of a chunk, in the index or not: subsets of a tar name slides alike."""
        self._slides.look_at(_texts(chunk, np.flatnonzero(_are_tiles(chunk)), plain=True))

    def decide(self) -> None:
        """Settle what the paths mean."""
        self._slides.decide()

    def names(self, chunk: MemberChunk, rows: NDArray[np.intp]) -> list[str]:
        """Names of the slides (r,)."""
        chosen = _are_tiles(chunk)
        chosen[rows] = True
        tiles = np.flatnonzero(chosen)
        names = []
        for path in _texts(chunk, tiles, plain=True):
            name = self._slides.name(path)
            self._nameless += name is None
            names.append(one_line(path) if name is None else name)
        self._sizes.update(names)
        return [names[place] for place in np.searchsorted(tiles, rows).tolist()]

    def finish(self, members: Members) -> list[str]:
        """Raises GroupError if paths do not tell slides."""
        if not self._sizes:
            return []
        sizes = np.fromiter(self._sizes.values(), np.int64, len(self._sizes))
        try:
            found = check_slides(sizes, list(self._sizes), nameless=self._nameless)
        except UnknownGroupsError as error:
            raise GroupError(
                f"which slide each tile is of is not known: {error}. Say it with --pattern, such as '([^/]+)/[^/]*$' "
                "for the folder that a tile is in, or with --csv"
            ) from error
        return [found] if self._nameless else []


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
        self._missing: set[str] = set()

    def names(self, chunk: MemberChunk, rows: NDArray[np.intp]) -> list[str]:
        """Names of the groups (r,)."""
        return [self._name(path) for path in _texts(chunk, rows, plain=False)]

    def finish(self, members: Members) -> list[str]:
        """Raises GroupError if there were paths in which nothing was found, or what stands for a missing value."""
        if self._unmatched_count:
            raise GroupError(
                f"--pattern {show_name(self._pattern.pattern)} finds nothing in {self._unmatched_count:,} paths: "
                f"{show_names(self._unmatched, total=self._unmatched_count)}. Paths are searched as tar -tf lists them."
            )
        if self._missing:
            raise GroupError(
                f"--pattern {show_name(self._pattern.pattern)} finds groups whose names stand for missing values: "
                f"{show_names(sorted(self._missing))}. Leave their tiles out, or say the groups with --csv."
            )
        return []

    def _name(self, path: str) -> str:
        match = self._pattern.search(path)
        name = match[min(self._pattern.groups, 1)] if match else None
        if name and is_missing(name):
            self._missing.add(name)
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
        tile = chosen | _are_tiles(chunk)
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


def _are_tiles(chunk: MemberChunk) -> NDArray[np.bool_]:
    """Which members (n,) may be tiles, whether they are in the index or not."""
    return are_images(chunk.bases) & (chunk.sizes > 0) & ~chunk.hidden


def _texts(chunk: MemberChunk, rows: NDArray[np.intp], *, plain: bool) -> Iterator[str]:
    """Paths of the chosen members, without "./" in front if they are to be plain."""
    for i in rows.tolist():
        path = chunk.paths[i]
        yield (plain_path(path) if plain else path).decode("utf-8", "surrogateescape")
