"""Finds out to which slide, or which site, each row of the entries belongs, from the paths of the members.

The names beside the entries have lost their folders, so the headers of the tar are walked again. Each row must be the
member that the walk finds under its file number. Memory follows the number of groups, not of tiles; a csv file takes
about 20 bytes a row besides.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.groups import Groups, find_runs
from dinov2.data.tar_index.errors import ArchiveError, SelectionError, SideFileError, StaleIndexError, show_name
from dinov2.data.tar_index.fingerprint import (
    AGAIN,
    Fingerprint,
    TarRecord,
    check_fingerprint,
    current_record,
    fingerprint,
)
from dinov2.data.tar_index.group_files import RUN_COLUMNS, GroupFiles, write_names
from dinov2.data.tar_index.group_rules import GroupRule, PathRule, PatternRule, TableRule
from dinov2.data.tar_index.infer import IndexRequest
from dinov2.data.tar_index.labels import LabelColumns
from dinov2.data.tar_index.links import regular_then_links
from dinov2.data.tar_index.members import MemberChunk, Members
from dinov2.data.tar_index.numpy_files import ArrayWriter, load_entries, load_table
from dinov2.data.tar_index.staging import Staging

GROUP_COLUMNS = LabelColumns(label="group", class_name=None, what="group", as_text=True)  # of slides


@dataclass(frozen=True)
class GroupRequest:
    """Which entries to group and how; the fields are the flags of scripts/group_entries.py.

    Attributes:
        pattern: regular expression that finds the group in a member path.
        csv: table of groups; without both, the path decides.
        kind: what the groups are: "slide", which may mean a patient, or "site", of which paths say nothing.
    """

    tarball: Path
    output_root: Path
    name: str | None = None
    suffix: str | None = None
    pattern: str | None = None
    csv: Path | None = None
    columns: LabelColumns = GROUP_COLUMNS
    kind: str = "slide"

    @property
    def index(self) -> IndexRequest:
        """What the entries were made with."""
        return IndexRequest(self.tarball, self.output_root, self.name, self.suffix)

    @property
    def entries(self) -> Path:
        """The entries."""
        return self.output_root / self.index.entries

    @property
    def files(self) -> GroupFiles:
        """What is written."""
        return GroupFiles(self.name, self.suffix, self.kind)

    def rule(self) -> GroupRule:
        """What names the groups.

        Raises:
            SelectionError: nothing says it, or two things do.
        """
        if self.pattern is not None and self.csv is not None:
            raise SelectionError("--pattern and --csv exclude each other: only one can say what the groups are.")
        if self.csv is not None:
            return TableRule(self.csv, columns=self.columns)
        if self.kind != "slide" and self.pattern is None:
            raise SelectionError(f"what --kind {self.kind} a tile is of has to be said by --pattern or --csv.")
        return PathRule(self.tarball) if self.pattern is None else PatternRule(self.pattern)


@dataclass(frozen=True)
class GroupReport:
    """What was found."""

    path: Path
    groups: Groups
    warnings: list[str]
    seconds: float

    def line(self) -> str:
        """The summary, on one line."""
        groups = self.groups
        sizes = ""
        if len(groups.names):
            least, most = int(groups.sizes.argmin()), int(groups.sizes.argmax())
            sizes = (
                f" from {show_name(groups.names[least])} with {groups.sizes[least]:,} "
                f"to {show_name(groups.names[most])} with {groups.sizes[most]:,}"
            )
        return (
            f"{self.path}: {groups.size:,} tiles in {len(groups.names):,} groups{sizes}, "
            f"{len(groups.runs):,} runs; {self.seconds:,.1f} s"
        )


def group_entries(request: GroupRequest) -> GroupReport:
    """Write which group each row of the entries belongs to, or nothing.

    Raises:
        ArchiveError: the archive cannot be read completely.
        SideFileError: the entries are those of another archive or of several.
        SelectionError, GroupError, LabelError: the rule does not give every tile one group.
    """
    request.index.check()
    began = time.perf_counter()
    members = Members(request.tarball)
    before = fingerprint(request.tarball)
    rows, rule = _EntryRows(request), request.rule()
    if isinstance(rule, PathRule):
        _look_at_all(members, rule)
    with Staging(request.output_root) as staging:
        runs = ArrayWriter(staging.open(request.files.runs), columns=RUN_COLUMNS)
        numbers: dict[str, int] = {}
        for found in find_runs(_group_numbers(members, rows, rule, numbers)):
            runs.append(found)
        runs.close()
        rows.finish()
        warnings = rule.finish(members)
        write_names(staging.open(request.files.names), list(numbers))
        if fingerprint(request.tarball) != before:
            raise ArchiveError(f"{show_name(members.path)} changed while it was read. Index it again.")
        _commit(request, staging, tar=before)
    path = request.output_root / request.files.runs
    groups = Groups(load_table(path, columns=RUN_COLUMNS), list(numbers))
    return GroupReport(path, groups, warnings, time.perf_counter() - began)


class _EntryRows:
    """The rows of the entries, met one after the other as their members come by."""

    def __init__(self, request: GroupRequest) -> None:
        """Open the entries.

        Raises:
            SideFileError: they are of another archive or of several.
        """
        self._path = request.entries
        self._entries = load_entries(request.entries)
        if self._entries.shape[1] == 5:
            raise SideFileError(
                f"{show_name(self._path)} is of several cohorts. Group each cohort by itself, with --name COHORT, and "
                "join them again with scripts/concat_entries.py, which joins their groups too."
            )
        check_fingerprint(request.output_root, request.name, request.tarball, suffix=request.suffix)
        self._row = self._file = 0

    def among(self, chunk: MemberChunk) -> NDArray[np.intp]:
        """Which members of the next chunk are rows, (r,).

        Raises:
            StaleIndexError: a row has other bytes than the member, or stands in another order.
        """
        end = self._file + len(chunk.paths)
        rows = np.asarray(self._entries[self._row : self._row + len(chunk.paths), 1:4]).astype(np.int64)
        rows = rows[: np.count_nonzero(np.logical_and.accumulate(rows[:, 0] < end))]
        places = rows[:, 0] - self._file
        wrong = np.diff(places, prepend=-1) < 1
        if not wrong.any():
            starts = chunk.starts[places]
            wrong = (rows[:, 1:] != np.column_stack([starts, starts + chunk.sizes[places]])).any(axis=1)
        if wrong.any():
            raise self._misfit(self._row + int(wrong.argmax()))
        self._row, self._file = self._row + len(rows), end
        return places

    def finish(self) -> None:
        """Raises StaleIndexError if there are rows of which no member came by."""
        if self._row < len(self._entries):
            raise self._misfit(self._row)

    def _misfit(self, row: int) -> StaleIndexError:
        _, file, start, end = self._entries[row].tolist()
        return StaleIndexError(
            f"row {row:,} of {show_name(self._path)}, file {file:,} at bytes {start:,}-{end:,}, is not in the archive, "
            f"or not in this order. {AGAIN}"
        )


def _look_at_all(members: Members, rule: PathRule) -> None:
    """Show the rule all paths before it names one."""
    for chunk in regular_then_links(members, title="reading names"):
        rule.look_at(chunk)
    rule.decide()


def _group_numbers(
    members: Members, rows: _EntryRows, rule: GroupRule, numbers: dict[str, int]
) -> Iterator[NDArray[np.int64]]:
    """Group number of each row, in pieces (r,); new names get the next numbers."""
    for chunk in regular_then_links(members, title="grouping"):
        names = rule.names(chunk, rows.among(chunk))
        yield np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), np.int64, len(names))


def _commit(request: GroupRequest, staging: Staging, *, tar: Fingerprint) -> None:
    """Put both files in place, with records of the entries and the tar that they belong to."""
    record = current_record(request.output_root, request.name, request.entries.name)
    tars = record.tars if record is not None else [TarRecord(tar, 0)]
    entries = fingerprint(request.entries)
    staging.commit(request.name, make_records=lambda staged: request.files.records(staged, entries=entries, tars=tars))
