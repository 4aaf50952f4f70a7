"""The manifest: what a checkpoint consists of, and the proof that this is what is there.

It is written last, so a folder that has one is complete. It is checked before anything else in the folder is opened:
its own seal, the list of files, their kinds, sizes and SHA-256 sums.
"""

import hashlib
import json
import re
import stat
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dinov2.errors import UserError

from .files import FileRecord, hash_file

MANIFEST = "manifest.json"
FORMAT = 1
MAX_MANIFEST_BYTES = 1 << 26  # more than 300,000 files

_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


class DamagedError(UserError):
    """A checkpoint that is not what was written; the message says which file and how."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint consists of."""

    step: int
    world_size: int  # processes that wrote it; any number can read it
    config_digest: str
    files: Mapping[str, FileRecord]
    format: int = FORMAT

    @property
    def num_bytes(self) -> int:
        """Size of all files but the manifest."""
        return sum(record.bytes for record in self.files.values())

    def to_text(self) -> str:
        """The manifest with its seal as JSON."""
        body = asdict(self)
        return json.dumps({"manifest": body, "sha256": _seal(body)}, indent=1, sort_keys=True) + "\n"

    @classmethod
    def from_text(cls, text: str) -> "Manifest":
        """Read what `to_text` wrote.

        Raises:
            DamagedError: if it is anything else.
            UserError: if it is of another format.
        """
        try:
            content = json.loads(text)
            body, seal = content["manifest"], content["sha256"]
            written_by = body["format"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DamagedError(f"{MANIFEST} cannot be read ({error})") from error
        if seal != _seal(body):
            raise DamagedError(f"{MANIFEST} is not what was written")
        if written_by != FORMAT:
            raise UserError(f"the checkpoint has format {written_by}, this version reads format {FORMAT}")
        try:
            files = {name: FileRecord(**record) for name, record in body["files"].items()}
            manifest = cls(**{**body, "files": files})
        except (KeyError, TypeError, AttributeError) as error:
            raise DamagedError(f"{MANIFEST} is no manifest of this program ({error})") from error
        if manifest.to_text() != text:
            raise DamagedError(f"{MANIFEST} is not what was written")
        return manifest


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a checkpoint, which has exactly the files that it lists.

    Raises:
        DamagedError: if it is missing or damaged, or a file is missing, too many, or no plain file.
    """
    path = folder / MANIFEST
    try:
        if not stat.S_ISREG(path.lstat().st_mode) or path.stat().st_size > MAX_MANIFEST_BYTES:
            raise DamagedError(f"{MANIFEST} is no plain file of a sensible size")
        manifest = Manifest.from_text(path.read_text(encoding="utf-8"))
        _check_list(folder, manifest)
    except (OSError, UnicodeDecodeError) as error:
        raise DamagedError(f"{MANIFEST} cannot be read ({error})") from error
    return manifest


def check_files(folder: Path, manifest: Manifest, names: Sequence[str]) -> None:
    """Compare files with the manifest, sizes before contents.

    Raises:
        DamagedError: names the first that differs.
    """
    for name in names:
        expected = manifest.files[name]
        try:
            size = (folder / name).stat().st_size
            if size != expected.bytes:
                raise DamagedError(f"{name} has {size:,} bytes, written were {expected.bytes:,}")
            if hash_file(folder / name) != expected:
                raise DamagedError(f"{name} is not what was written: its SHA-256 differs")
        except OSError as error:
            raise DamagedError(f"{name} cannot be read ({error})") from error


def _check_list(folder: Path, manifest: Manifest) -> None:
    """Compare the names in a folder with those in its manifest."""
    bad_names = [name for name in manifest.files if not _FILE_NAME.fullmatch(name) or name == MANIFEST]
    if bad_names:
        raise DamagedError(f"{MANIFEST} lists {bad_names[0]!r}, which is no name of a file of a checkpoint")
    found = {path.name: path.lstat().st_mode for path in folder.iterdir()}
    for name in sorted({*manifest.files, MANIFEST} - found.keys()):
        raise DamagedError(f"{name} is missing")
    for name in sorted(found.keys() - {*manifest.files, MANIFEST}):
        raise DamagedError(f"{name!r} is not part of it")
    for name, mode in found.items():
        if not stat.S_ISREG(mode):
            raise DamagedError(f"{name} is no plain file")


def _seal(body: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest itself."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
