"""Which slide, or which site, each row of the entries belongs to, in two files beside them.

`{name}_groups[_{suffix}].npy` has runs of consecutive rows, (R, 3) uint64: group number, first row, number of rows.
`{name}_group_names[_{suffix}].json` is a list of the groups' names by number. Those are of slides; for sites the files
are `{name}_sites...` and `{name}_site_names...`.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dinov2.data.groups import Groups
from dinov2.data.tar_index.errors import SideFileError, StaleIndexError, show_name
from dinov2.data.tar_index.fingerprint import (
    Fingerprint,
    SideFileRecord,
    TarRecord,
    entries_name,
    fingerprint,
    read_records,
    side_name,
)
from dinov2.data.tar_index.numpy_files import load_entries, load_table
from dinov2.data.tar_index.staging import Staging

RUN_COLUMNS = 3
LARGEST_NAMES = 1 << 30
AGAIN = (
    "Make it again with scripts/group_entries.py; for joined entries, do so for every cohort and join them again with "
    "scripts/concat_entries.py."
)


GROUP_KINDS = {"slide": "group", "site": "site"}  # of groups, and how their files are called


@dataclass(frozen=True)
class GroupFiles:
    """The two files of one set of entries, for one of `GROUP_KINDS`."""

    name: str | None
    suffix: str | None = None
    kind: str = "slide"

    @property
    def runs(self) -> str:
        """File name of the runs, for example pretrain_groups_train.npy."""
        return self._file(f"{GROUP_KINDS[self.kind]}s") + ".npy"

    @property
    def names(self) -> str:
        """File name of the names, for example pretrain_group_names_train.json."""
        return self._file(f"{GROUP_KINDS[self.kind]}_names") + ".json"

    def records(self, staged: Staging, *, entries: Fingerprint, tars: Sequence[TarRecord]) -> dict[str, SideFileRecord]:
        """What to record about the staged files, which mean nothing without the entries and each other."""
        needs = {entries_name(self.name, self.suffix): entries}
        names = staged.fingerprint(self.names)
        return {
            self.names: SideFileRecord(names, tars, needs),
            self.runs: SideFileRecord(staged.fingerprint(self.runs), tars, {**needs, self.names: names}),
        }

    def _file(self, what: str) -> str:
        return side_name(self.name, "_".join(part for part in (what, self.suffix) if part))


def load_groups(
    extra: str | Path, name: str | None, *, suffix: str | None = None, kind: str = "slide"
) -> Groups | None:
    """The groups of the rows of entries; None if they were never found out.

    Args:
        kind: one of `GROUP_KINDS`.
    Raises:
        StaleIndexError: they belong to other entries than the ones beside them.
        SideFileError: a file is damaged.
    """
    folder, files = Path(extra), GroupFiles(name, suffix, kind)
    path = folder / files.runs
    if not path.exists():
        return None
    if not any(_is_current(record, path) for record in read_records(folder, name).get(path.name, [])):
        raise StaleIndexError(
            f"{show_name(path)} was made for other files than {show_name(entries_name(name, suffix))} and "
            f"{show_name(files.names)} beside it, or was exchanged. {AGAIN}"
        )
    runs, names = load_table(path, columns=RUN_COLUMNS), _load_names(folder / files.names)
    num_rows = len(load_entries(folder / entries_name(name, suffix)))
    try:
        groups = Groups(runs, names)
        if groups.size != num_rows:
            raise ValueError(f"it is of {groups.size:,} rows, expected {num_rows:,} as there are entries")
    except ValueError as error:
        raise SideFileError(f"{show_name(path)} cannot be used: {error}. {AGAIN}") from error
    return groups


def write_names(file: BinaryIO, names: Sequence[str]) -> None:
    """Write the list of names, one a line; whatever is in them, the file is ASCII."""
    file.write(json.dumps(list(names), indent=0).encode("ascii") + b"\n")


def _is_current(record: SideFileRecord, path: Path) -> bool:
    """Whether a file and all that it needs are as they were recorded."""
    expected = {path: record.file, **{path.with_name(file): needed for file, needed in record.needs.items()}}
    return all(file.is_file() and fingerprint(file) == expected[file] for file in expected)


def _load_names(path: Path) -> list[str]:
    try:
        if path.stat().st_size > LARGEST_NAMES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes")
        names = json.loads(path.read_bytes())
        if not isinstance(names, list) or not all(type(name) is str for name in names):
            raise ValueError("expected a list of names")
    except (OSError, ValueError, RecursionError) as error:
        raise SideFileError(f"{show_name(path)} cannot be used: {error}. {AGAIN}") from error
    return names
