"""Reads an indexed archive again, all of it, and compares it with its index.

Three things are checked. The headers are walked, and every row of the entries must be a tile that the walk
finds; the file names must be the same. Then every tile is read: all bytes there, CRC-32 as recorded,
decodable. Decoding alone is no check of the bytes. A fingerprint that does not fit is noted first.
"""

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.concat import COHORTS
from dinov2.data.tar_index.crc import crc_name, load_crc32
from dinov2.data.tar_index.errors import SelectionError, StaleIndexError, show_name
from dinov2.data.tar_index.fingerprint import (
    SideFileRecord,
    TarRecord,
    check_entries,
    check_fingerprint,
    current_record,
    entries_name,
    fingerprint,
    side_name,
)
from dinov2.data.tar_index.header_check import RowCheck, check_headers
from dinov2.data.tar_index.name_files import load_names
from dinov2.data.tar_index.numpy_files import ArrayWriter, load_entries
from dinov2.data.tar_index.progress import byte_progress
from dinov2.data.tar_index.staging import Staging
from dinov2.data.tar_index.tile_check import Problem, Stretch, check_stretch, need_pillow
from dinov2.errors import UserError
from dinov2.utils.atomic import write_text
from dinov2.utils.outputs import OutputError, try_file
from dinov2.utils.pool import LostWorkerError, in_order

SCAN_ROWS = 1 << 20
STRETCH_ROWS = 512
KEPT_PROBLEMS = 100_000


@dataclass(frozen=True)
class VerifyRequest:
    """What to check; the fields are the flags of scripts/verify_dataset.py.

    Attributes:
        tar: the archive, or for joined entries the folder with `{cohort}.tar`.
        workers: processes; 0 or 1 works in this one.
        max_pixels: of a tile, as `data.max_pixels` of the training; None for its default.
    """

    tar: Path
    extra: Path
    name: str | None = None
    suffix: str | None = None
    workers: int = 1
    decode: bool = True
    write_crc: bool = False
    report: Path | None = None
    max_pixels: int | None = None

    @property
    def entries(self) -> str:
        """File name of the entries."""
        return entries_name(self.name, self.suffix)

    @property
    def crc(self) -> str:
        """File name of the CRC-32 values."""
        return crc_name(self.name, self.suffix)


@dataclass
class VerifyReport:
    """What was found.

    Attributes:
        kinds: how many faults of each kind of `Problem`.
        problems: the first 100,000 of them.
        archive: faults of an archive as a whole.
        unwritten: why something that was to be written is not; what was found is complete all the same.
    """

    path: Path
    tiles: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)
    archive: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    unwritten: OutputError | None = None

    @property
    def count(self) -> int:
        """How many faults of single tiles there are."""
        return sum(self.kinds.values())

    @property
    def unchanged(self) -> bool:
        """Whether the archive is what was indexed, whether its tiles decode or not."""
        return not self.archive and set(self.kinds) <= {"image"}

    @property
    def good(self) -> bool:
        """Whether nothing is wrong."""
        return not self.count and not self.archive

    def line(self) -> str:
        """The summary, on one line."""
        if self.good:
            return f"{self.tiles:,} tiles are as they were indexed"
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(self.kinds.items()))
        return (
            f"{self.count:,} faults in {self.tiles:,} tiles ({kinds or 'none'}), "
            f"{len(self.archive):,} of whole archives" + ("" if self.unwritten else f"; listed in {self.path}")
        )

    def note(self, problem: Problem) -> None:
        """Count a bad tile, and keep it if it is among the first."""
        self.kinds[problem.kind] += 1
        if len(self.problems) < KEPT_PROBLEMS:
            self.problems.append(problem)


@dataclass(frozen=True)
class Part:
    """Consecutive rows [first, last) of the entries that lie in one tar; `name` is the prefix of its file names."""

    tar: Path
    name: str | None
    first: int
    last: int


def verify_dataset(request: VerifyRequest) -> VerifyReport:
    """Check everything, write the report, and on request the CRC-32 values.

    Raises:
        SideFileError: the index is damaged, or has rows that cannot lie in the archive at all.
    """
    if request.decode:
        need_pillow()
    path = request.extra / request.entries
    entries = load_entries(path)
    parts = _parts(request, entries)
    report = VerifyReport(
        request.report or path.with_name(path.stem.replace("entries", "verified") + ".jsonl"), tiles=len(entries)
    )
    try:
        try_file(report.path)
    except OutputError as error:
        raise OutputError(f"{error} --report FILE names another place for the list of bad tiles.") from error
    read_all = False
    try:
        with Staging(request.extra) if request.write_crc else nullcontext() as staging:
            _check_headers(request, parts, entries, report)
            crc = _known_crc(request, report)
            sink = ArrayWriter(staging.open(request.crc), dtype="<u4", columns=None) if staging else None
            _check_tiles(request, parts, entries, crc, sink=sink, report=report)
            read_all = True
            if staging and sink:
                sink.close()
                _commit_crc(request, staging, report)
        faults = [json.dumps({"archive": fault}) for fault in report.archive]
        lines = [*faults, *(problem.json() for problem in report.problems)]
        write_text(report.path, "".join(line + "\n" for line in lines))
    except OutputError as error:
        if not read_all:
            raise
        report.unwritten = error
    return report


def _check_headers(
    request: VerifyRequest, parts: list[Part], entries: NDArray[np.uint64], report: VerifyReport
) -> None:
    """Compare each archive, and every header in it, with the index."""
    for part in parts:
        _check_fingerprint(request, part, entries, report)
        names = request.extra / side_name(part.name, "file_indices.npy")
        check = RowCheck(str(part.tar), entries, rows=(part.first, part.last), note=report.note)
        report.archive += check_headers(part.tar, check, names=names, prefix=part.name)


def _check_fingerprint(request: VerifyRequest, part: Part, entries: NDArray[np.uint64], report: VerifyReport) -> None:
    """A changed archive is a fault; if its tiles can still lie where they were, the rest tells which changed."""
    try:
        if not check_fingerprint(request.extra, request.name, part.tar, suffix=request.suffix):
            report.notes.append(f"the index of {show_name(part.tar)} has no fingerprint: made by another tool")
    except StaleIndexError as error:
        rows = entries[part.first : part.last]
        number = int(rows[0, 4]) if rows.shape[1] == 5 else 0
        check_entries(rows, tar_sizes={number: part.tar.stat().st_size}, name=request.entries)
        report.archive.append(str(error))


def _parts(request: VerifyRequest, entries: NDArray[np.uint64]) -> list[Part]:
    """The stretches of rows that lie in one tar each."""
    if entries.shape[1] == 4:
        if not request.tar.is_file():
            raise SelectionError(f"--tarball_path {show_name(request.tar)} is not a file, as entries of one tar need.")
        return [Part(request.tar, request.name, 0, len(entries))]
    if not request.tar.is_dir():
        raise SelectionError(
            f"{show_name(request.tar)} is not a folder: entries of several cohorts need the folder of their tars."
        )
    cohorts = load_names(request.extra / COHORTS)
    edges = [0, *_changes(entries[:, 4]), len(entries)]
    parts = []
    for first, last in pairwise(edges):
        cohort = cohorts.get(int(entries[first, 4])) if first < last else ""
        if cohort is None:
            raise SelectionError(
                f"row {first:,} has the cohort index {int(entries[first, 4])}, which {COHORTS} does not know."
            )
        parts.append(Part(request.tar / f"{cohort}.tar", cohort, first, last))
    return [part for part in parts if part.first < part.last]


def _changes(column: NDArray[np.uint64]) -> list[int]:
    """Rows whose value differs from the row before, (n,) looked through piece by piece."""
    changes: list[int] = []
    for first in range(0, len(column), SCAN_ROWS):
        piece = np.asarray(column[max(0, first - 1) : first + SCAN_ROWS])
        changes += (np.flatnonzero(piece[1:] != piece[:-1]) + max(1, first)).tolist()
    return changes


def _check_tiles(
    request: VerifyRequest,
    parts: list[Part],
    entries: NDArray[np.uint64],
    crc: NDArray[np.uint32] | None,
    *,
    sink: ArrayWriter | None,
    report: VerifyReport,
) -> None:
    """Read every tile; CRC-32 values go to the sink, faults to the report."""
    total = int(sum((entries[part.first : part.last, 3] - entries[part.first : part.last, 2]).sum() for part in parts))
    stretches = _stretches(parts, entries, crc, request)
    read = tiles = 0
    try:
        with byte_progress(total, title="reading tiles", unit="tiles") as advance:
            for stretch, (values, problems) in in_order(check_stretch, stretches, workers=request.workers):
                for problem in problems:
                    report.note(problem)
                if sink is not None:
                    sink.append(values)
                read, tiles = read + int(np.diff(stretch.places).sum()), tiles + len(values)
                advance(read, tiles)
    except LostWorkerError as error:
        raise UserError(
            "a process that decoded tiles was killed: too little memory, or a damaged image that crashes its decoder. "
            "Try again with --workers 1, or with --no-decode."
        ) from error


def _stretches(
    parts: list[Part], entries: NDArray[np.uint64], crc: NDArray[np.uint32] | None, request: VerifyRequest
) -> Iterator[Stretch]:
    """All rows in pieces for the workers."""
    for part in parts:
        for first in range(part.first, part.last, STRETCH_ROWS):
            rows = slice(first, min(first + STRETCH_ROWS, part.last))
            places = entries[rows, 2:4].astype(np.int64)
            recorded = None if crc is None else np.array(crc[rows])
            yield Stretch(str(part.tar), first, places, recorded, request.decode, request.max_pixels)


def _known_crc(request: VerifyRequest, report: VerifyReport) -> NDArray[np.uint32] | None:
    """The recorded values; those of other entries count as none if new ones are to be written."""
    try:
        crc = load_crc32(request.extra, request.name, suffix=request.suffix)
    except StaleIndexError as error:
        if not request.write_crc:
            raise
        report.notes.append(f"recorded anew: {error}")
        return None
    if crc is None and not request.write_crc:
        report.notes.append(
            "no CRC-32 values are recorded, and nearly every tile with a changed byte still decodes, to a wrong "
            "picture. With --write_crc they are, and training checks every tile that it reads"
        )
    return crc


def _commit_crc(request: VerifyRequest, staging: Staging, report: VerifyReport) -> None:
    """Record the values, unless that would bless an archive that has changed."""
    if not report.unchanged:
        report.notes.append("the CRC-32 values were not written, since the archive is not what was indexed")
        return
    entries, crc = request.entries, request.crc
    record = current_record(request.extra, request.name, entries)
    tars: Sequence[TarRecord] = record.tars if record is not None else [TarRecord(fingerprint(request.tar), 0)]
    needs = {entries: fingerprint(request.extra / entries)}
    staging.commit(
        request.name, make_records=lambda staged: {crc: SideFileRecord(staged.fingerprint(crc), tars, needs)}
    )
