"""Replaces several side files together: at any moment, even after a kill, they fit or are known not to.

New files are written under temporary names and flushed. Then the JSON records get the old and the new state
of each file, the files are renamed into place, and last the records of the old states go. A record names the
tar it was made from, so every mixture that a kill can leave is either consistent or refused by
`check_fingerprint`.
"""

import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from dinov2.data.tar_index.fingerprint import (
    Fingerprint,
    SideFileRecord,
    fingerprint,
    read_records,
    records_text,
    side_name,
)
from dinov2.errors import UserError
from dinov2.utils.atomic import fsync, remove_abandoned, temporary_path, write_text
from dinov2.utils.locks import locked
from dinov2.utils.outputs import output_errors, try_folder

LOCK = ".index.lock"  # of a whole folder, since class-ids.npy and cohort_indices.npy are shared by all names


class Staging:
    """Temporary new versions of side files in `folder`; nothing is visible before `commit`.

    Use it in a with statement: without `commit` the block leaves nothing behind.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._files: dict[str, tuple[Path, BinaryIO]] = {}
        self._cleanup, self._locked = ExitStack(), False

    def __enter__(self) -> "Staging":
        """Try the folder, before the work that fills the files."""
        try_folder(self.folder)
        self._cleanup.enter_context(output_errors(self.folder))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cleanup.__exit__(kind, error, trace)

    def open(self, name: str) -> BinaryIO:
        """A new, empty file that will become `name`; opened again, it begins anew."""
        if name in self._files:
            file = self._files[name][1]
            file.seek(0)
            file.truncate()
            return file
        remove_abandoned(self.folder, name)
        path = self._cleanup.enter_context(temporary_path(self.folder / name))
        file = path.open("x+b")
        self._cleanup.callback(_close, file)
        self._files[name] = (path, file)
        return file

    def scratch(self) -> BinaryIO:
        """A file without a name, gone when it is closed or this process ends."""
        return tempfile.TemporaryFile(dir=self.folder)

    def lock(self) -> None:
        """Let other commands that write into the folder wait until the block ends."""
        if not self._locked:
            self._cleanup.enter_context(locked(self.folder / LOCK))
            self._locked = True

    def fingerprint(self, name: str) -> Fingerprint:
        """Of the staged file as it is now."""
        path, file = self._files[name]
        file.flush()
        return fingerprint(path)

    def commit(self, prefix: str | None, *, make_records: Callable[["Staging"], Mapping[str, SideFileRecord]]) -> None:
        """Put all files in place, with their records in `{prefix}_index.json`."""
        self._flush()
        self.lock()
        new = make_records(self)
        old = _readable_records(self.folder, prefix)
        both = old | {name: [*old.get(name, []), record] for name, record in new.items()}
        json_path = self.folder / side_name(prefix, "index.json")
        write_text(json_path, records_text(both))
        self._rename()
        write_text(json_path, records_text(old | {name: [record] for name, record in new.items()}))

    def publish(self) -> None:
        """Put all files in place without records: for what is no side file."""
        self._flush()
        self._rename()

    def _flush(self) -> None:
        for _, file in self._files.values():
            file.flush()
            os.fsync(file.fileno())

    def _rename(self) -> None:
        for name, (path, file) in self._files.items():
            file.close()
            path.replace(self.folder / name)
        fsync(self.folder)


def _close(file: BinaryIO) -> None:
    """Close a file whose last bytes may find no room; that has been told before."""
    with suppress(OSError):
        file.close()


def _readable_records(folder: Path, prefix: str | None) -> dict[str, list[SideFileRecord]]:
    """Records of files that exist; a damaged JSON file counts as none, since it is about to be replaced."""
    try:
        records = read_records(folder, prefix)
    except UserError:
        return {}
    return {name: several for name, several in records.items() if (folder / name).exists()}
