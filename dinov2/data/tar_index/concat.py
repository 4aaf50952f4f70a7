"""Joins the entries of several cohorts, one tar each, into one index with a fifth column: the cohort index.

Differs from clemsgrs/dinov2: the suffix also chooses the inputs, so a subset is never mixed with the whole; a
cohort keeps its index from one run to the next as long as other joined entries in the folder refer to it;
offsets stay integers throughout; every fault is an error.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from dinov2.data.groups import Groups
from dinov2.data.hidden import is_hidden
from dinov2.data.tar_index.class_ids import CLASS_IDS, settle_class_ids
from dinov2.data.tar_index.crc import crc_name, drop_stale_crc, load_crc32
from dinov2.data.tar_index.errors import (
    LabelError,
    SelectionError,
    SideFileError,
    StaleIndexError,
    show_name,
    show_names,
)
from dinov2.data.tar_index.fingerprint import (
    SideFileRecord,
    TarRecord,
    check_fingerprint,
    current_record,
    entries_name,
)
from dinov2.data.tar_index.group_files import RUN_COLUMNS, GroupFiles, load_groups, write_names
from dinov2.data.tar_index.infer import check_file_part
from dinov2.data.tar_index.labels import ClassTable
from dinov2.data.tar_index.name_files import load_class_ids, load_names
from dinov2.data.tar_index.numpy_files import ArrayWriter, load_entries, write_name_dict, write_object_array
from dinov2.data.tar_index.staging import Staging

JOINED = "pretrain"
COHORTS = "cohort_indices.npy"
SPLITS = frozenset({"query", "test"})  # entries of the evaluation; a cohort of that name has to be asked for
COPY_ROWS = 1 << 16


@dataclass(frozen=True)
class ConcatRequest:
    """What to join and where to put it; the fields are the flags of scripts/concat_entries.py.

    Attributes:
        root: folder with `{cohort}_entries[_{suffix}].npy`, and perhaps the tars.
        cohorts: which ones; empty for all in the folder.
    """

    root: Path
    output_root: Path
    suffix: str | None = None
    cohorts: tuple[str, ...] = ()

    @property
    def entries(self) -> str:
        """File name of the joined entries."""
        return entries_name(JOINED, self.suffix)


@dataclass
class ConcatReport:
    """What was joined: rows by cohort, in the order of the joined file."""

    entries: Path
    rows: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The summary, on one line."""
        cohorts = ", ".join(f"{show_name(cohort)} {rows:,}" for cohort, rows in self.rows.items())
        return f"{self.entries}: {sum(self.rows.values()):,} tiles of {len(self.rows):,} cohorts: {cohorts}"


def concat_entries(request: ConcatRequest) -> ConcatReport:
    """Write the joined entries, `cohort_indices.npy` and, if every cohort has them, CRC-32 values and groups.

    Raises:
        SelectionError, SideFileError, LabelError: the inputs are not what they should be; nothing was written.
    """
    _check(request)
    report = ConcatReport(request.output_root / request.entries)
    cohorts = _find_cohorts(request, report)
    records = {cohort: _checked_record(request, cohort, report) for cohort in cohorts}
    with Staging(request.output_root) as staging:
        staging.lock()  # of the numbers and classes that are read here nothing may change
        names = _number_cohorts(request, cohorts)
        index_of = {name: index for index, name in enumerate(names)}
        classes = _common_classes(request, records)
        rows = ArrayWriter(staging.open(request.entries), columns=5)
        for cohort in cohorts:
            report.rows[cohort] = _append(rows, request.root / _input(request, cohort), cohort_index=index_of[cohort])
        rows.close()
        write_name_dict(staging.open(COHORTS), names)
        has_crc = _join_crc(request, staging, cohorts)
        groups = _join_groups(request, staging, report)
        if classes is not None:
            write_object_array(staging.open(CLASS_IDS), classes, shape=(len(classes), 2))
        tars = [_tar_record(records[cohort], cohort, index_of[cohort]) for cohort in cohorts]
        _commit(request, staging=staging, tars=tars, labelled=classes is not None, has_crc=has_crc, groups=groups)
    report.warnings += drop_stale_crc(request.output_root, JOINED, suffix=request.suffix)
    return report


def joined_cohorts(extra: str | Path, *, suffix: str | None = None) -> dict[int, str]:
    """The cohorts of joined entries by their cohort index.

    Raises:
        SideFileError: the files are missing or damaged, or the entries are those of a single tar.
        SelectionError: a cohort's name would lead out of its folder.
    """
    entries = entries_name(JOINED, suffix)
    record = current_record(extra, JOINED, entries)
    cohorts = load_names(Path(extra) / COHORTS) if record is None else {tar.index: tar.cohort for tar in record.tars}
    if load_entries(Path(extra) / entries).shape[1] != 5:
        raise SideFileError(
            f"{show_name(Path(extra) / entries)} is of a single tar: expected 5 columns, as scripts/concat_entries.py "
            "writes them. A single tar is named with Pathology:root=...:extra=..."
        )
    for cohort in cohorts.values():
        check_file_part(cohort, flag="the cohort")
    return cohorts


def _check(request: ConcatRequest) -> None:
    for flag, folder in (("--root", request.root), ("--output_root", request.output_root)):
        if not folder.is_dir():
            raise SelectionError(f"{flag} {show_name(folder)} is not a folder.")
    if request.suffix is not None:
        check_file_part(request.suffix, flag="--suffix")


def _input(request: ConcatRequest, cohort: str) -> str:
    return entries_name(cohort, request.suffix)


def _find_cohorts(request: ConcatRequest, report: ConcatReport) -> list[str]:
    """Names of the cohorts to join, sorted."""
    ending = "_" + entries_name(None, request.suffix)
    files = (path.name for path in request.root.glob("*" + ending) if not is_hidden(path.name))
    found = sorted(name.removesuffix(ending) for name in files)
    if request.cohorts:
        missing = sorted(set(request.cohorts) - set(found))
        if missing:
            raise SelectionError(
                f"{show_name(request.root)} has no entries of {show_names(missing)}; found {show_names(found)}."
            )
        return sorted(set(request.cohorts))
    splits = [cohort for cohort in found if cohort in SPLITS]
    if splits:
        report.warnings.append(
            f"left out {show_names(splits)}: entries of an evaluation split; --cohorts takes them in"
        )
    cohorts = [cohort for cohort in found if cohort not in SPLITS and not _is_joined(request, cohort)]
    if not cohorts:
        raise SelectionError(
            f"{show_name(request.root)} has no file like {show_name('COHORT' + ending)}. "
            "Index each cohort with scripts/infer_entries.py --name COHORT"
            + (f" --suffix {request.suffix}." if request.suffix else ".")
        )
    return cohorts


def _is_joined(request: ConcatRequest, cohort: str) -> bool:
    """Whether this is the joined file of an earlier run, not a cohort."""
    return cohort == JOINED and load_entries(request.root / _input(request, cohort)).shape[1] == 5


def _checked_record(request: ConcatRequest, cohort: str, report: ConcatReport) -> SideFileRecord | None:
    """The record of a cohort's entries, after checking them against their tar if that lies beside them."""
    check_file_part(cohort, flag="the cohort")
    path = request.root / _input(request, cohort)
    entries = load_entries(path)
    if entries.shape[1] != 4:
        raise SideFileError(
            f"{show_name(path)} is joined already: expected 4 columns, got {entries.shape[1]}. Move it away."
        )
    if path.resolve() == (request.output_root / request.entries).resolve():
        raise SelectionError(
            f"the cohort {show_name(cohort)} would be overwritten by the joined entries. Choose another --output_root."
        )
    if not len(entries):
        report.warnings.append(f"cohort {show_name(cohort)} has no tiles")
    tar = request.root / f"{cohort}.tar"
    if tar.is_file():
        check_fingerprint(request.root, cohort, tar, suffix=request.suffix)
    record = current_record(request.root, cohort, path.name)
    if record is None:
        report.warnings.append(
            f"cohort {show_name(cohort)} was indexed without fingerprints, so a change of its tar would go unnoticed"
        )
    return record


def _number_cohorts(request: ConcatRequest, cohorts: list[str]) -> list[str]:
    """Cohort names by index. Indices that other joined entries in the folder use stay; new cohorts come after."""
    path = request.output_root / COHORTS
    others = [p for p in request.output_root.glob(f"{JOINED}_entries*.npy") if p.name != request.entries]
    if not path.exists() or not any(load_entries(other).shape[1] == 5 for other in others):
        return cohorts
    known = load_names(path)
    if sorted(known) != list(range(len(known))):
        raise SideFileError(
            f"{show_name(path)} does not number cohorts from 0 on. Delete it and all joined entries beside it."
        )
    names = [known[index] for index in range(len(known))]
    return names + [cohort for cohort in cohorts if cohort not in names]


def _common_classes(request: ConcatRequest, records: dict[str, SideFileRecord | None]) -> ClassTable | None:
    """The class table that all labelled cohorts share; None without labels."""
    labelled = [cohort for cohort, record in records.items() if record is not None and CLASS_IDS in record.needs]
    if not labelled:
        return None
    unlabelled = sorted(set(records) - set(labelled))
    if unlabelled:
        raise LabelError(
            f"{show_names(labelled)} have labels and {show_names(unlabelled)} have none: "
            "their tiles would count as class 0. Index them with --csv too."
        )
    classes = load_class_ids(request.root / CLASS_IDS)
    settled = settle_class_ids(request.output_root, classes, entries=request.entries)
    if settled is not None and settled != classes:
        raise LabelError(
            f"{CLASS_IDS} in {show_name(request.output_root)} is another one, and other entries depend on it."
        )
    return classes


def _append(rows: ArrayWriter, path: Path, *, cohort_index: int) -> int:
    """Copy the rows of one cohort; returns how many."""
    entries = load_entries(path)
    for first in range(0, len(entries), COPY_ROWS):
        part = entries[first : first + COPY_ROWS]
        rows.append(np.column_stack([part, np.full(len(part), cohort_index, np.uint64)]))
    return len(entries)


def _join_crc(request: ConcatRequest, staging: Staging, cohorts: list[str]) -> bool:
    """Join the CRC-32 values too, if every cohort has some."""
    values = [load_crc32(request.root, cohort, suffix=request.suffix) for cohort in cohorts]
    joined = [part for part in values if part is not None]
    if len(joined) < len(cohorts):
        return False
    writer = ArrayWriter(staging.open(crc_name(JOINED, request.suffix)), dtype="<u4", columns=None)
    for part in joined:
        writer.append(part)
    writer.close()
    return True


def _join_groups(request: ConcatRequest, staging: Staging, report: ConcatReport) -> GroupFiles | None:
    """Join the groups too, if every cohort with tiles has some; a group is called "cohort/name" then."""
    parts: dict[str, Groups] = {}
    without: list[str] = []
    for cohort in (cohort for cohort, rows in report.rows.items() if rows):
        try:
            groups = load_groups(request.root, cohort, suffix=request.suffix)
        except StaleIndexError as error:
            groups = None
            report.warnings.append(str(error))
        if groups is None:
            without.append(cohort)
        else:
            parts[cohort] = groups
    if parts and without:
        report.warnings.append(f"groups are not joined, since {show_names(without)} have none of these entries")
    if without or not parts:
        return None
    joined, files = Groups.concatenate(list(parts.values()), prefixes=list(parts)), GroupFiles(JOINED, request.suffix)
    writer = ArrayWriter(staging.open(files.runs), columns=RUN_COLUMNS)
    writer.append(joined.runs)
    writer.close()
    write_names(staging.open(files.names), joined.names)
    return files


def _tar_record(record: SideFileRecord | None, cohort: str, index: int) -> TarRecord:
    made_for = record.tars[0] if record is not None else TarRecord(None, 0)
    return TarRecord(made_for.fingerprint, made_for.members, cohort, index)


def _commit(
    request: ConcatRequest,
    *,
    staging: Staging,
    tars: list[TarRecord],
    labelled: bool,
    has_crc: bool,
    groups: GroupFiles | None,
) -> None:
    """Put the files in place, each with its record."""

    def records(staged: Staging) -> dict[str, SideFileRecord]:
        entries = staged.fingerprint(request.entries)
        needs = {CLASS_IDS: staged.fingerprint(CLASS_IDS)} if labelled else {}
        made = {request.entries: SideFileRecord(entries, tars, needs)}
        if has_crc:
            crc = crc_name(JOINED, request.suffix)
            made[crc] = SideFileRecord(staged.fingerprint(crc), tars, {request.entries: entries})
        if groups is not None:
            made |= groups.records(staged, entries=entries, tars=tars)
        return made

    staging.commit(JOINED, make_records=records)
