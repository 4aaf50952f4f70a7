"""Makes the index of one tar: entries, file names, class names and the fingerprints that tie them to the archive.

File numbers count the regular members from 0 in archive order, whether they are tiles or not, as in
clemsgrs/dinov2. Hard links, which that indexer drops, come after: they are numbered on from the last regular
member, and their rows follow all others, with the bytes of their target. So every number and row of the old
index stays what it was.
"""

import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.builder import NOTHING, IndexBuilder
from dinov2.data.tar_index.class_ids import CLASS_IDS, settle_class_ids
from dinov2.data.tar_index.crc import drop_stale_crc
from dinov2.data.tar_index.errors import ArchiveError, LabelError, SelectionError, show_name
from dinov2.data.tar_index.fingerprint import SideFileRecord, TarRecord, entries_name, fingerprint, side_name
from dinov2.data.tar_index.labels import LabelColumns, LabelTable
from dinov2.data.tar_index.members import Members
from dinov2.data.tar_index.numpy_files import ArrayWriter, NameDictWriter, write_object_array
from dinov2.data.tar_index.replaced import SeenPaths
from dinov2.data.tar_index.selection import Selection
from dinov2.data.tar_index.staging import Staging


@dataclass(frozen=True)
class IndexRequest:
    """What to index and where to put it; the fields are the flags of scripts/infer_entries.py."""

    tarball: Path
    output_root: Path
    name: str | None = None
    suffix: str | None = None
    keep: Path | None = None
    remove: Path | None = None
    csv: Path | None = None
    columns: LabelColumns = field(default_factory=LabelColumns)

    @property
    def entries(self) -> str:
        """File name of the entries."""
        return entries_name(self.name, self.suffix)

    @property
    def file_indices(self) -> str:
        """File name of the member names."""
        return side_name(self.name, "file_indices.npy")

    def check(self) -> None:
        """Refuse what can be refused before the archive is read."""
        if self.keep and self.remove:
            raise SelectionError(
                "--keep and --remove exclude each other: give the list of what to keep or of what to leave out."
            )
        if not self.output_root.is_dir():
            raise SelectionError(f"--output_root {show_name(self.output_root)} is not a folder. Create it first.")
        for flag, value in (("--name", self.name), ("--suffix", self.suffix)):
            if value is not None:
                check_file_part(value, flag=flag)


@dataclass(frozen=True)
class IndexReport:
    """What was found.

    Attributes:
        members: regular files and hard links.
        tiles: rows of the entries file.
        left_out: members that are no rows, by reason.
    """

    entries: Path
    members: int
    tiles: int
    classes: int
    left_out: Counter[str]
    warnings: list[str]
    archive_bytes: int
    seconds: float

    def line(self) -> str:
        """The summary, on one line."""
        left_out = (
            ", ".join(f"{count:,} {reason}" for reason, count in sorted(self.left_out.items()) if count) or "nothing"
        )
        classes = f" in {self.classes:,} classes" if self.classes else ""
        return (
            f"{self.entries}: {self.tiles:,} tiles{classes} of {self.members:,} members; left out: {left_out}; "
            f"{self.seconds:,.1f} s, {self.members / self.seconds:,.0f} members/s, "
            f"{self.archive_bytes / 1e6 / self.seconds:,.0f} MB/s"
        )


def infer_entries(request: IndexRequest) -> IndexReport:
    """Index `request.tarball` and write the side files, all or none.

    Raises:
        ArchiveError: the archive cannot be indexed completely.
        SelectionError, LabelError: the lists do not fit the archive.
    """
    request.check()
    began = time.perf_counter()
    members = Members(request.tarball)
    before = fingerprint(request.tarball)
    with Staging(request.output_root) as staging:
        built = _build(request, members, staging)
        if fingerprint(request.tarball) != before:
            raise ArchiveError(
                f"{show_name(members.path)} changed while it was indexed. Index it again once it is complete."
            )
        _commit(request, staging=staging, labels=built.labels, tar=TarRecord(before, built.names.count))
    built.warnings += drop_stale_crc(request.output_root, request.name, suffix=request.suffix)
    return IndexReport(
        entries=request.output_root / request.entries,
        members=built.names.count,
        tiles=built.tiles,
        classes=len(built.labels.classes) if built.labels else 0,
        left_out=built.left_out,
        warnings=built.warnings,
        archive_bytes=members.size,
        seconds=time.perf_counter() - began,
    )


def _build(request: IndexRequest, members: Members, staging: Staging) -> IndexBuilder:
    """Walk the archive into the staged files; again, where it has files whose path comes again later."""

    def build(seen: SeenPaths | None, replaced: NDArray[np.int64]) -> IndexBuilder:
        rows = ArrayWriter(staging.open(request.entries))
        names = NameDictWriter(staging.open(request.file_indices))
        selection, labels = Selection(request.keep, request.remove), _labels(request)
        builder = IndexBuilder(rows=rows, names=names, selection=selection, labels=labels, seen=seen, replaced=replaced)
        builder.build(members)
        return builder

    with staging.scratch() as file:
        built = build(SeenPaths(file), NOTHING)
    return build(None, built.replaced) if len(built.replaced) else built


def check_file_part(value: str, *, flag: str) -> None:
    """Refuse a prefix or suffix that would lead out of the output folder or make a strange file name."""
    if not value or not value.isprintable() or value.startswith(".") or "/" in value or "\\" in value:
        raise SelectionError(f"{flag} {show_name(value)} cannot be part of a file name: use letters, digits, - and _.")


def _labels(request: IndexRequest) -> LabelTable | None:
    """The csv's labels, in the class indices that the folder already uses if other entries depend on them."""
    if request.csv is None:
        return None
    labels = LabelTable(request.csv, columns=request.columns)
    settled = settle_class_ids(request.output_root, labels.classes, entries=request.entries)
    if settled is not None:
        labels.adopt(settled)
    return labels


def _commit(request: IndexRequest, *, staging: Staging, labels: LabelTable | None, tar: TarRecord) -> None:
    """Put the side files in place, each with its record."""
    if labels is not None:
        write_object_array(staging.open(CLASS_IDS), labels.classes, shape=(len(labels.classes), 2))

    def records(staged: Staging) -> dict[str, SideFileRecord]:
        if labels is not None:
            settled = settle_class_ids(request.output_root, labels.classes, entries=request.entries)
            if settled not in (None, labels.classes):
                raise LabelError(f"another command has written {CLASS_IDS} meanwhile. Run this one again.")
        needs = {CLASS_IDS: staged.fingerprint(CLASS_IDS)} if labels is not None else {}
        return {
            request.entries: SideFileRecord(staged.fingerprint(request.entries), [tar], needs),
            request.file_indices: SideFileRecord(staged.fingerprint(request.file_indices), [tar]),
        }

    staging.commit(request.name, make_records=records)
