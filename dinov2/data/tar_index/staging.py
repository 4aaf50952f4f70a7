"""Replaces several side files together: at any moment, even after a kill, they fit or are known not to.

New files are written under temporary names and flushed. Then the JSON records get the old and the new state
of each file, the files are renamed into place, and last the records of the old states go. A record names the
tar it was made from, so every mixture that a kill can leave is either consistent or refused by
`check_fingerprint`.
"""

import os
import secrets
import time
from collections.abc import Callable, Mapping
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
from dinov2.utils.atomic import fsync, write_text

LEFTOVER_SECONDS = 24 * 3600


class Staging:
    """Temporary new versions of side files in `folder`; nothing is visible before `commit`.

    Use it in a with statement: without `commit` the block leaves nothing behind.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self._files: dict[str, tuple[Path, BinaryIO]] = {}

    def __enter__(self) -> "Staging":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for path, file in self._files.values():
            file.close()
            path.unlink(missing_ok=True)

    def open(self, name: str) -> BinaryIO:
        """A new, empty file that will become `name`."""
        self._sweep(name)
        path = self.folder / f".{name}.{secrets.token_hex(8)}.tmp"
        try:
            file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666), "w+b")
        except OSError as error:
            raise UserError(
                f"cannot write into {str(self.folder)!r}: {error.strerror}. Check --output_root."
            ) from error
        self._files[name] = (path, file)
        return file

    def fingerprint(self, name: str) -> Fingerprint:
        """Of the staged file as it is now."""
        path, file = self._files[name]
        file.flush()
        return fingerprint(path)

    def commit(self, prefix: str | None, *, make_records: Callable[["Staging"], Mapping[str, SideFileRecord]]) -> None:
        """Put all files in place, with their records in `{prefix}_index.json`."""
        self._flush()
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

    def _sweep(self, name: str) -> None:
        """Remove what killed runs left behind more than a day ago."""
        for path in self.folder.glob(f".{name}.*.tmp"):
            if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                path.unlink(missing_ok=True)


def _readable_records(folder: Path, prefix: str | None) -> dict[str, list[SideFileRecord]]:
    """Records of files that exist; a damaged JSON file counts as none, since it is about to be replaced."""
    try:
        records = read_records(folder, prefix)
    except UserError:
        return {}
    return {name: several for name, several in records.items() if (folder / name).exists()}
