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
from dinov2.data.tar_index.names import base_names
from dinov2.data.tar_index.selection import Selection, ambiguity

IMAGE_SUFFIXES = (b".jpg", b".jpeg", b".png", b".tif", b".tiff", b".bmp", b".webp")
LONGEST_SUFFIX = max(map(len, IMAGE_SUFFIXES))
RESOURCE_FORK = b"._"


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

    Attributes:
        left_out: members that are no rows, by reason.
        warnings: what a person should know though it is no error.
    """

    def __init__(self, *, rows: RowSink, names: NameSink, selection: Selection, labels: LabelTable | None):
        self.left_out: Counter[str] = Counter()
        self.warnings: list[str] = []
        self._rows, self._names, self._selection, self._labels = rows, names, selection, labels
        self._unlabelled: list[bytes] = []
        self._unlabelled_count = 0

    def build(self, members: Members) -> None:
        """Add all regular members, then the hard links, whose targets a second walk finds.

        Raises:
            UserError: the archive is damaged, or a list or label table does not fit it.
        """
        for chunk in regular_then_links(members, title="indexing"):
            self._add(chunk)
        self.left_out.update(members.skipped)
        self._rows.close()
        self._names.close()
        self.warnings += self._selection.finish(members)
        self._check_labels(members)

    def _add(self, chunk: MemberChunk) -> None:
        """Number the members of a chunk and append those that are selected tiles."""
        first, bases = self._names.count, base_names(chunk.paths)
        self._names.append(bases)
        tile = self._tiles(chunk, bases)
        selected = tile & self._selection.select(chunk.paths, bases, tile=tile)
        self.left_out["tiles not selected"] += int(np.count_nonzero(tile & ~selected))
        rows = np.empty((len(bases), 4), np.int64)
        rows[:, 0] = self._label(chunk.paths, bases, tile=tile, selected=selected)
        rows[:, 1] = np.arange(first, first + len(bases))
        rows[:, 2] = chunk.starts
        rows[:, 3] = chunk.starts + chunk.sizes
        self._rows.append(rows if selected.all() else rows[selected])

    def _tiles(self, chunk: MemberChunk, bases: list[bytes]) -> NDArray[np.bool_]:
        """Which members are images with content, (m,) bool; the others are counted."""
        images, filled = are_images(bases), chunk.sizes > 0
        self.left_out["not images"] += int(np.count_nonzero(~images))
        self.left_out["empty images"] += int(np.count_nonzero(images & ~filled))
        return images & filled

    def _label(
        self, paths: list[bytes], bases: list[bytes], *, tile: NDArray[np.bool_], selected: NDArray[np.bool_]
    ) -> NDArray[np.int64] | int:
        """Class index of each member, (m,); 0 without labels."""
        if self._labels is None:
            return 0
        labels = self._labels.look_up(self._labels.names.find(paths, bases, counted=tile), selected=selected)
        missing = np.flatnonzero(selected & (labels < 0))
        self._unlabelled_count += len(missing)
        self._unlabelled += [paths[i] for i in missing[: SHOWN_NAMES - len(self._unlabelled)]]
        return labels

    def _check_labels(self, members: Members) -> None:
        """Every selected tile has one label, and it is known which."""
        if self._labels is None:
            return
        if self._unlabelled_count:
            raise LabelError(
                f"{show_name(self._labels.path)} has no row for {self._unlabelled_count:,} of the selected tiles: "
                f"{show_names(self._unlabelled, total=self._unlabelled_count)}. "
                "Add them to the csv, or leave them out with --keep or --remove."
            )
        count = self._labels.count_ambiguous()
        if count:
            names = [name.encode("utf-8", "surrogateescape") for name in self._labels.ambiguous(SHOWN_NAMES)]
            raise LabelError(f"{show_name(self._labels.path)}: {ambiguity(members, names, total=count)}")


def are_images(bases: list[bytes]) -> NDArray[np.bool_]:
    """Whether each base name ends like an image, (m,) bool; "._x.jpg", what macOS puts beside x.jpg, is none.

    Names share few endings, so each ending is judged once.
    """
    ends = [base[-LONGEST_SUFFIX:] for base in bases]
    judged = {end: end.lower().endswith(IMAGE_SUFFIXES) for end in set(ends)}
    if all(judged.values()):
        images = np.ones(len(bases), bool)
    else:
        images = np.fromiter((judged[end] for end in ends), bool, len(ends))
    if RESOURCE_FORK in b"".join(bases):
        images &= np.fromiter((not base.startswith(RESOURCE_FORK) for base in bases), bool, len(bases))
    return images
