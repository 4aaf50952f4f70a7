"""Finds out to which slide each row of the entries belongs, from the paths of the members.

The names beside the entries have lost their folders, so the headers of the tar are walked again. Each row must be the
member that the walk finds under its file number. Memory follows the number of groups, not of tiles; a csv file takes
about 20 bytes a row besides.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path

from dinov2.data.groups import Groups, find_runs
from dinov2.data.tar_index.errors import ArchiveError, SelectionError, show_name
from dinov2.data.tar_index.fingerprint import TarRecord, current_record, fingerprint
from dinov2.data.tar_index.group_files import RUN_COLUMNS, GroupFiles, load_groups, write_names
from dinov2.data.tar_index.group_rules import GroupRule, PathRule, PatternRule, TableRule
from dinov2.data.tar_index.infer import IndexRequest
from dinov2.data.tar_index.labels import LabelColumns
from dinov2.data.tar_index.members import Members
from dinov2.data.tar_index.numpy_files import ArrayWriter
from dinov2.data.tar_index.staging import Staging

GROUP_COLUMNS = LabelColumns(label="group", class_name=None, what="group", as_text=True)


@dataclass(frozen=True)
class GroupRequest:
    """Which entries to group and how; the fields are the flags of scripts/group_entries.py.

    Attributes:
        pattern: regular expression that finds the group in a member path.
        csv: table of groups; without both, the path decides.
    """

    tarball: Path
    output_root: Path
    name: str | None = None
    suffix: str | None = None
    pattern: str | None = None
    csv: Path | None = None
    columns: LabelColumns = field(default_factory=lambda: GROUP_COLUMNS)

    @property
    def index(self) -> IndexRequest:
        """What the entries were made with."""
        return IndexRequest(self.tarball, self.output_root, self.name, self.suffix)

    @property
    def entries(self) -> Path:
        """The entries file."""
        return self.output_root / self.index.entries

    def rule(self) -> GroupRule:
        """What names the groups."""
        if self.pattern is not None and self.csv is not None:
            raise SelectionError("--pattern and --csv exclude each other: only one can say what the groups are.")
        if self.csv is not None:
            return TableRule(self.csv, columns=self.columns)
        return PathRule() if self.pattern is None else PatternRule(self.pattern)


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
    entries, rule = _checked_entries(request), request.rule()
    files = GroupFiles(request.name, request.suffix)
    with Staging(request.output_root) as staging:
        numbers: dict[str, int] = {}
        runs = ArrayWriter(staging.open(files.runs), columns=RUN_COLUMNS)
        for found in find_runs(_group_numbers(members, _EntryRows(entries, request.entries), rule, numbers)):
            runs.append(found)
        runs.close()
        write_names(staging.open(files.names), list(numbers))
        if fingerprint(request.tarball) != before:
            raise ArchiveError(f"{show_name(members.path)} changed while it was read. Index it again.")
        record = current_record(request.output_root, request.name, request.entries.name)
        tars = record.tars if record is not None else [TarRecord(before, 0)]
        made_for = fingerprint(request.entries)
        staging.commit(request.name, make_records=lambda staged: files.records(staged, entries=made_for, tars=tars))
    groups = load_groups(request.output_root, request.name, suffix=request.suffix)
    assert groups is not None
    warnings = rule.finish(members)
    return GroupReport(request.output_root / files.runs, groups, warnings, time.perf_counter() - began)
