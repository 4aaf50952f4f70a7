"""Tells whether the index files beside a tar belong to it as it is now.

`{name}_index.json` keeps, for each side file, what the file itself and the tar looked like when it was
written: the size and a hash of samples of the content. Times are not compared, since copying changes them. A
check costs a few dozen small reads, whatever the sizes.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import SideFileError, StaleIndexError, show_name, show_names
from dinov2.data.tar_index.numpy_files import load_entries

FORMAT = 1
EDGE_BYTES, SAMPLE_BYTES, SAMPLES = 16 << 10, 512, 14
LARGEST_JSON = 64 << 20
CHECK_ROWS = 1 << 16
AGAIN = "Index the archive again with scripts/infer_entries.py."


@dataclass(frozen=True)
class Fingerprint:
    """Size in bytes and SHA-256 over the first and last 16 KiB and 14 samples between."""

    size: int
    sha256: str

    def __str__(self) -> str:
        return f"{self.size:,} bytes, sample hash {self.sha256[:12]}"


@dataclass(frozen=True)
class TarRecord:
    """One tar that a side file was made from.

    Attributes:
        fingerprint: None where the fork's own tool had made the index, which records none.
        members: regular files and hard links in it.
        cohort: its name among several tars; empty for a single one.
        index: its cohort index in the fifth column of the entries.
    """

    fingerprint: Fingerprint | None
    members: int
    cohort: str = ""
    index: int = 0


@dataclass(frozen=True)
class SideFileRecord:
    """What a side file was made from.

    Attributes:
        file: the side file itself.
        tars: the archives it describes.
        needs: other files of the folder that it means nothing without, as they were: the class-ids.npy of
            labelled entries, the entries of CRC-32 values.
    """

    file: Fingerprint
    tars: Sequence[TarRecord]
    needs: Mapping[str, Fingerprint] = field(default_factory=dict)


def entries_name(name: str | None, suffix: str | None = None) -> str:
    """File name of the entries, for example pretrain_entries_train.npy."""
    return "_".join(part for part in (name, "entries", suffix) if part) + ".npy"


def side_name(name: str | None, what: str) -> str:
    """File name of another side file, for example pretrain_file_indices.npy or pretrain_index.json."""
    return f"{name}_{what}" if name else what


def fingerprint(path: str | Path) -> Fingerprint:
    """The fingerprint of a file, from at most 16 reads."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise SideFileError(f"{show_name(path)} cannot be opened: {error.strerror}.") from error
    try:
        size = os.fstat(descriptor).st_size
        digest = hashlib.sha256()
        for at, length in _sampled_places(size):
            digest.update(os.pread(descriptor, length, at))
        return Fingerprint(size, digest.hexdigest())
    finally:
        os.close(descriptor)


def _sampled_places(size: int) -> list[tuple[int, int]]:
    between = [(size * (i + 1) // (SAMPLES + 1), SAMPLE_BYTES) for i in range(SAMPLES)] if size > 2 * EDGE_BYTES else []
    return [(0, EDGE_BYTES), *between, (max(0, size - EDGE_BYTES), EDGE_BYTES)]


def read_records(folder: str | Path, name: str | None) -> dict[str, list[SideFileRecord]]:
    """Records by side file; empty without a JSON file, as the fork's own tool leaves none.

    While several files are being replaced, a file has two records: of its old and of its new state.
    """
    path = Path(folder) / side_name(name, "index.json")
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        return _parse_records(json.loads(path.read_bytes()))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SideFileError(f"{show_name(path)} is damaged: {error}. {AGAIN}") from error


def records_text(records: Mapping[str, Sequence[SideFileRecord]]) -> str:
    """The JSON that `read_records` reads."""
    files = {file: [asdict(record) for record in several] for file, several in sorted(records.items())}
    return json.dumps({"format": FORMAT, "files": files}, indent=1) + "\n"


def _parse_records(data: dict[str, Any]) -> dict[str, list[SideFileRecord]]:
    if data["format"] != FORMAT:
        raise ValueError(f"expected format {FORMAT}, got {data['format']!r}")
    return {file: [_parse_record(record) for record in several] for file, several in data["files"].items()}


def _parse_record(record: dict[str, Any]) -> SideFileRecord:
    needs = {str(file): _parse_fingerprint(found) for file, found in record["needs"].items()}
    return SideFileRecord(_parse_fingerprint(record["file"]), [_parse_tar(tar) for tar in record["tars"]], needs)


def _parse_tar(tar: dict[str, Any]) -> TarRecord:
    made_for = tar["fingerprint"] and _parse_fingerprint(tar["fingerprint"])
    return TarRecord(made_for, int(tar["members"]), str(tar["cohort"]), int(tar["index"]))


def _parse_fingerprint(data: dict[str, Any]) -> Fingerprint:
    return Fingerprint(int(data["size"]), str(data["sha256"]))


def check_fingerprint(extra: str | Path, name: str | None, tar: str | Path, *, suffix: str | None = None) -> bool:
    """Refuse entries that were made for another archive than `tar`, or that were exchanged since.

    Args:
        extra: folder with the side files.
        name: their prefix, for example "pretrain".
        tar: the archive; among the tars of several cohorts it is told by its stem.
        suffix: the subset.
    Returns:
        True if fingerprints were recorded and agree; False if none were, in which case the offsets were
        checked against the tar's size.
    Raises:
        StaleIndexError: with what was expected and found.
    """
    return check_tars(extra, name, {0: Path(tar)}, suffix=suffix)


def check_tars(extra: str | Path, name: str | None, tars: Mapping[int, Path], *, suffix: str | None = None) -> bool:
    """`check_fingerprint` for several cohorts at once.

    Args:
        tars: by cohort index, the fifth column of the entries; a single tar under any index.
    """
    entries = Path(extra) / entries_name(name, suffix)
    record = current_record(extra, name, entries.name)
    unrecorded = {}
    for index, tar in tars.items():
        made_for = None if record is None else _record_of(tar, record, entries)
        if made_for is None or made_for.fingerprint is None:
            unrecorded[index if made_for is None else made_for.index] = tar.stat().st_size
        elif (found := fingerprint(tar)) != made_for.fingerprint:
            raise StaleIndexError(
                f"{show_name(entries)} was made for another state of {show_name(tar)}: "
                f"expected {made_for.fingerprint}, found {found}. {AGAIN}"
            )
    if unrecorded:
        check_entries(load_entries(entries), tar_sizes=unrecorded, name=entries.name)
    return not unrecorded


def current_record(folder: str | Path, name: str | None, file: str) -> SideFileRecord | None:
    """The record that fits a side file as it is on disk; None if the file was never recorded.

    Raises:
        StaleIndexError: there are records of this file, but for another content.
    """
    several = read_records(folder, name).get(file)
    if not several:
        return None
    path = Path(folder) / file
    found = fingerprint(path)
    for record in several:
        if record.file == found:
            _check_needs(record, path)
            return record
    raise StaleIndexError(
        f"{show_name(path)} is not the file that {show_name(side_name(name, 'index.json'))} beside it describes: "
        f"expected {several[-1].file}, found {found}. {AGAIN}"
    )


def _check_needs(record: SideFileRecord, path: Path) -> None:
    """The files that this one refers to are there and are the same."""
    for needed, expected in record.needs.items():
        other = path.with_name(needed)
        found = fingerprint(other) if other.is_file() else "no file"
        if found != expected:
            raise StaleIndexError(
                f"{show_name(path)} was made for another {show_name(needed)} than the one beside it: "
                f"expected {expected}, found {found}. {AGAIN}"
            )


def _record_of(tar: Path, record: SideFileRecord, entries: Path) -> TarRecord:
    """What is recorded about one tar: the only one, or the one of that name among cohorts."""
    if len(record.tars) == 1 and not record.tars[0].cohort:
        return record.tars[0]
    for made_for in record.tars:
        if made_for.cohort == tar.stem:
            return made_for
    known = show_names([made_for.cohort for made_for in record.tars])
    raise StaleIndexError(
        f"{show_name(entries)} knows the cohorts {known}, not {show_name(tar.stem)}. "
        "Run scripts/concat_entries.py again."
    )


def check_entries(entries: NDArray[np.uint64], *, tar_sizes: Mapping[int, int], name: str = "entries.npy") -> None:
    """Refuse rows that cannot be tiles of their tar.

    Args:
        entries: (n, 4) uint64 of one tar; or (n, 5), of which the rows of tars not given are passed over.
        tar_sizes: bytes by cohort index; for (n, 4) of the one tar, under any index.
    Raises:
        StaleIndexError: naming the first bad row.
    """
    indices = np.array(sorted(tar_sizes), np.uint64)
    sizes = np.array([tar_sizes[int(index)] for index in indices], np.uint64)
    for first in range(0, len(entries), CHECK_ROWS):
        rows = np.asarray(entries[first : first + CHECK_ROWS])
        start, end, size = rows[:, 2], rows[:, 3], sizes[:1]
        given = np.ones(len(rows), bool)
        if rows.shape[1] == 5:
            places = np.minimum(np.searchsorted(indices, rows[:, 4]), len(indices) - 1)
            given, size = indices[places] == rows[:, 4], sizes[places]
        bad = (start >= end) | (end > size) | (start < SAMPLE_BYTES) | (start % np.uint64(512) != 0)
        found = np.flatnonzero(bad & given)
        if len(found):
            row = int(found[0])
            raise StaleIndexError(
                f"row {first + row:,} of {show_name(name)} is no tile of the archive: "
                f"bytes {int(start[row]):,}-{int(end[row]):,}, expected a start at a multiple of 512, "
                f"before the end, inside the archive's {int(np.broadcast_to(size, len(rows))[row]):,} bytes. {AGAIN}"
            )
