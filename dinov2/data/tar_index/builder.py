"""Turns the members of a tar into rows, names and labels.

One chunk at a time: memory does not grow with the archive.
"""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import SHOWN_NAMES, LabelError, show_name, show_names
from dinov2.data.tar_index.labels import LabelTable
from dinov2.data.tar_index.links import regular_then_links
from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.names import encoding_hint
from dinov2.data.tar_index.replaced import SeenPaths
from dinov2.data.tar_index.selection import Selection, ambiguity

IMAGE_SUFFIXES = (b".jpg", b".jpeg", b".png", b".tif", b".tiff", b".bmp", b".webp")
NOTHING = np.zeros(0, np.int64)


class RowSink(Protocol):
    """Takes the rows of tiles."""

    def append(self, rows: NDArray[np.generic]) -> None:
        """Rows (n, 4): label, file index, start, end."""

    def close(self) -> None:
        """No more rows."""


class NameSink(Protocol):
    """Takes the base names of members; `count` is how many it has."""

    count: int

    def append(self, names: Sequence[bytes]) -> None:
        """The next names, in the order of their file indices."""

    def close(self) -> None:
        """No more names."""


class IndexBuilder:
    """Receives members and writes entries and file names.

    Args:
        rows: takes the entries (n, 4): label, file index, start, end.
        names: takes the base name of every member.
        selection: which tiles become rows.
        labels: class indices by name; without them the first column is 0.
        seen: takes the paths, to find those that come again; without it they all count.
        replaced: numbers of files that are left out because their path comes again, ascending.

    Attributes:
        tiles: how many rows there are.
        left_out: members that are no rows, by reason.
        warnings: what a person should know though it is no error.
    """

    def __init__(
        self,
        *,
        rows: RowSink,
        names: NameSink,
        selection: Selection,
        labels: LabelTable | None,
        seen: SeenPaths | None = None,
        replaced: NDArray[np.int64] = NOTHING,
    ):
        self.tiles, self.left_out, self.warnings = 0, Counter[str](), list[str]()
        self.names, self.labels, self.replaced = names, labels, replaced
        self._rows, self._selection, self._seen = rows, selection, seen
        self._unlabelled, self._old, self._hidden = _Examples(), _Examples(), _Examples()

    def build(self, members: Members) -> None:
        """Add all regular members, then the hard links, whose targets a second walk finds.

        Where `replaced` holds something afterwards that it did not hold before, nothing is right, and it has to be done
        again without those files.

        Raises:
            UserError: the archive is damaged, or a list or label table does not fit it.
        """
        for chunk in regular_then_links(members, title="indexing", seen=self._seen):
            self._add(chunk)
        if self._seen is not None and len(replaced := self._seen.replaced(members)):
            self.replaced = replaced
            return
        self.left_out.update(members.skipped)
        self._rows.close()
        self.names.close()
        self._warn()
        self.warnings += self._selection.finish(members)
        self._check_labels(members)

    def _add(self, chunk: MemberChunk) -> None:
        """Number the members of a chunk and append those that are selected tiles."""
        first = self.names.count
        self.names.append(chunk.bases)
        tile = self._tiles(chunk, first)
        selected = tile & self._selection.select(chunk, tile=tile)
        self.left_out["tiles not selected"] += int(np.count_nonzero(tile & ~selected))
        rows = np.empty((len(tile), 4), np.int64)
        rows[:, 0] = self._label(chunk, tile=tile, selected=selected)
        rows[:, 1] = np.arange(first, first + len(tile))
        rows[:, 2] = chunk.starts
        rows[:, 3] = chunk.starts + chunk.sizes
        self.tiles += int(np.count_nonzero(selected))
        self._rows.append(rows if selected.all() else rows[selected])

    def _tiles(self, chunk: MemberChunk, first: int) -> NDArray[np.bool_]:
        """Which members are images with content that count, (m,) bool; the others are counted.

        Args:
            first: file number of the first member.
        """
        images, filled = are_images(chunk.bases), chunk.sizes > 0
        if chunk.hidden.any():  # macOS puts a "._x.jpg" without a picture beside x.jpg
            images &= np.fromiter((not base.startswith(b"._") for base in chunk.bases), bool, len(images))
        self.left_out["not images"] += int(np.count_nonzero(~images))
        self.left_out["empty images"] += int(np.count_nonzero(images & ~filled))
        tile = images & filled
        if chunk.hidden.any():
            self._hidden.add(chunk, tile & chunk.hidden)
            tile &= ~chunk.hidden
        old = self.replaced[slice(*np.searchsorted(self.replaced, [first, first + len(tile)]))] - first
        if len(old):
            replaced = np.zeros(len(tile), bool)
            replaced[old] = True
            self._old.add(chunk, tile & replaced)
            tile &= ~replaced
        return tile

    def _label(
        self, chunk: MemberChunk, *, tile: NDArray[np.bool_], selected: NDArray[np.bool_]
    ) -> NDArray[np.int64] | int:
        """Class index of each member, (m,); 0 without labels."""
        if self.labels is None:
            return 0
        labels = self.labels.look_up(self.labels.names.find(chunk.plain, chunk.bases, counted=tile), selected=selected)
        self._unlabelled.add(chunk, selected & (labels < 0))
        return labels

    def _warn(self) -> None:
        """Say what was left out that looks like a tile."""
        self.left_out["hidden"], self.left_out["replaced"] = self._hidden.count, self._old.count
        if self._old.count:
            self.warnings.append(
                f"{self._old.count:,} tiles come again later in the archive under the same path, as after tar -u, -r "
                f"or -A; the last one counts, as when unpacking. Left out are the earlier {self._old}"
            )
        if self._hidden.count:
            self.warnings.append(
                f"{self._hidden.count:,} images are hidden, or in hidden folders such as .ipynb_checkpoints, @eaDir "
                f"and __MACOSX, and left out: {self._hidden}. If they are tiles, pack them under another name"
            )

    def _check_labels(self, members: Members) -> None:
        """Every selected tile has one label, and it is known which."""
        if self.labels is None:
            return
        if self._unlabelled.count:
            raise LabelError(
                f"{show_name(self.labels.path)} has no row for {self._unlabelled.count:,} of the selected tiles: "
                f"{self._unlabelled}. Add them to the csv, or leave them out with --keep or --remove."
                f"{encoding_hint(self.labels.path)}"
            )
        count = self.labels.count_ambiguous()
        if count:
            names = self.labels.ambiguous(SHOWN_NAMES)
            raise LabelError(f"{show_name(self.labels.path)}: {ambiguity(members, names, total=count)}")


class _Examples:
    """Counts members and keeps the first paths, which it shows as text."""

    def __init__(self) -> None:
        self.count, self._paths = 0, list[bytes]()

    def add(self, chunk: MemberChunk, which: NDArray[np.bool_]) -> None:
        """Count the members for which `which` (m,) is true."""
        places = np.flatnonzero(which)
        self.count += len(places)
        self._paths += [chunk.paths[i] for i in places[: SHOWN_NAMES - len(self._paths)]]

    def __str__(self) -> str:
        return show_names(self._paths, total=self.count)


def are_images(bases: list[bytes]) -> NDArray[np.bool_]:
    """Whether each base name ends like an image, (m,) bool. Where all end alike, as they mostly do, one is judged."""
    ending = bases[0].rpartition(b".")[2] if bases else b""
    if b"\0".join([*bases, b""]).count(b"." + ending + b"\0") == len(bases):
        return np.full(len(bases), (b"." + ending).lower() in IMAGE_SUFFIXES)
    return np.fromiter((base.lower().endswith(IMAGE_SUFFIXES) for base in bases), bool, len(bases))
