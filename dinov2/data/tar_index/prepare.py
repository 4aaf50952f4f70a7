"""From a folder of images to everything that training reads: a tar, its index, and the CRC-32 of every tile.

The tar has what `tar -chf` would store of the folder's content, but nothing hidden, in sorted order and GNU format:
links are followed, and a file met again through links becomes a hard link (a file met first without one is stored
again, since remembering all of them would cost memory). It is the same, byte for byte, wherever the files are the same:
owners and permissions are left out.
"""

import json
import os
import shutil
import stat
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from dinov2.data.hidden import is_hidden
from dinov2.data.tar_index.errors import SelectionError, show_name, show_names
from dinov2.data.tar_index.fingerprint import Fingerprint, fingerprint
from dinov2.data.tar_index.headers import BLOCK
from dinov2.data.tar_index.infer import IndexReport, IndexRequest, check_file_part, infer_entries
from dinov2.data.tar_index.progress import byte_progress
from dinov2.data.tar_index.staging import Staging
from dinov2.data.tar_index.verify import VerifyReport, VerifyRequest, verify_dataset
from dinov2.errors import UserError
from dinov2.utils.atomic import remove_abandoned, write_text
from dinov2.utils.dataset_strings import join_dataset_string
from dinov2.utils.outputs import OutputError, try_folder

COPY_BYTES = 1 << 20
RECORD_BYTES = 20 * BLOCK


@dataclass(frozen=True)
class PrepareRequest:
    """What to pack and where to put it; the fields are the flags of scripts/prepare_dataset.py."""

    images: Path
    output_root: Path
    name: str = "pretrain"
    workers: int = 1
    overwrite: bool = False
    max_pixels: int | None = None

    @property
    def tar(self) -> Path:
        """The archive to make."""
        return self.output_root / f"{self.name}_dataset.tar"

    @property
    def unfinished(self) -> Path:
        """What the tar was made from; it is there until all is done."""
        return self.output_root / f".{self.tar.name}.unfinished.json"

    @property
    def dataset_string(self) -> str:
        """What to write into the configuration."""
        root = str(self.output_root.resolve())
        return join_dataset_string("Pathology", [("root", root), ("extra", root)])


@dataclass(frozen=True)
class Content:
    """What a folder has to pack: so many files and bytes, hard links counted once; `newest` is a time in ns."""

    images: str
    files: int
    bytes: int
    newest: int


def prepare_dataset(request: PrepareRequest) -> tuple[IndexReport, VerifyReport]:
    """Make the tar, index it, read every tile back and record its CRC-32.

    After a kill the same call goes on with the tar, if that was complete, or begins anew.

    Raises:
        UserError: the folder cannot be packed; a tar that was there is left as it was.
    """
    check_file_part(request.name, flag="--name")
    if not request.images.is_dir():
        raise SelectionError(f"--images {show_name(request.images)} is not a folder.")
    _refuse_nesting(request)
    if request.tar.exists() and not request.overwrite and not request.unfinished.exists():
        raise _tar_exists(request.tar)
    content = measure(request.images)
    if not _was_packed(request, content):
        try_folder(request.output_root)
        _check_room(request.output_root, content)
        pack(request.images, request.tar, content=content, note=request.unfinished)
    index = infer_entries(IndexRequest(request.tar, request.output_root, request.name))
    check = VerifyRequest(
        request.tar, request.output_root, request.name, workers=request.workers, write_crc=True,
        max_pixels=request.max_pixels,
    )  # fmt: skip
    report = verify_dataset(check)
    if report.unwritten is None:
        request.unfinished.unlink(missing_ok=True)
    return index, report


def measure(folder: Path) -> Content:
    """What is to be packed, without reading it.

    Raises:
        UserError: a file cannot be packed, links go in circles, or there is none.
    """
    files = size = newest = 0
    met: set[tuple[int, int]] = set()
    hidden: list[Path] = []
    for path, linked in _files(folder, (), hidden):
        with _reading(path):
            status = path.stat()
        inode = (status.st_dev, status.st_ino)
        if inode not in met:
            size += status.st_size
        if linked or status.st_nlink > 1:
            met.add(inode)
        files, newest = files + 1, max(newest, status.st_mtime_ns)
    if hidden:
        names = show_names([str(path) for path in hidden])
        print(f"{len(hidden):,} hidden files and folders are not packed: {names}", file=sys.stderr)
    if not files:
        raise SelectionError(f"{show_name(folder)} has no files.")
    return Content(str(folder.resolve()), files, size, newest)


def pack(folder: Path, tar: Path, *, content: Content, note: Path) -> int:
    """Write all files of `folder` into `tar`, which appears only when it is complete; returns how many.

    Args:
        content: of the folder.
        note: file that tells, until it is removed, what the tar was made from.
    Raises:
        UserError: a file cannot be read or changes, or links go in circles.
    """
    if remove_abandoned(tar.parent, tar.name):
        print(f"{tar} was not complete when packing was broken off; packing it from the beginning", file=sys.stderr)
    with Staging(tar.parent) as staging, byte_progress(content.bytes, title="packing", unit="files") as advance:
        file = staging.open(tar.name)
        packer = _Packer(file)
        for path, linked in _files(folder, (), []):
            packer.add(path, str(path.relative_to(folder)), linked=linked)
            advance(file.tell(), packer.count)
        packer.close()
        write_text(note, _note(content, staging.fingerprint(tar.name)))
        staging.publish()
    return packer.count


def _note(content: Content, tar: Fingerprint) -> str:
    return json.dumps({"content": asdict(content), "tar": asdict(tar)}, indent=1) + "\n"


def _was_packed(request: PrepareRequest, content: Content) -> bool:
    """Whether an earlier call has made the tar of the same files and did not come to its end.

    Raises:
        SelectionError: there is another tar, and it is not to be replaced.
    """
    if not request.tar.exists() or not request.unfinished.exists():
        return False
    if request.unfinished.read_text(encoding="utf-8") == _note(content, fingerprint(request.tar)):
        print(f"{request.tar} was packed before; going on with its index", file=sys.stderr)
        return True
    if not request.overwrite:
        raise _tar_exists(request.tar, "of other files, or they have changed since then")
    return False


def _tar_exists(tar: Path, what: str = "") -> SelectionError:
    return SelectionError(
        f"{show_name(tar)} exists{what and ', '}{what}. Choose another --name, or replace it with --overwrite."
    )


def _check_room(folder: Path, content: Content) -> None:
    """Refuse to begin what cannot end well for lack of room."""
    needed = content.bytes + content.files * 2 * BLOCK
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise OutputError(
            f"{folder} has room for {free / 1e9:,.2f} GB, and the tar of {content.files:,} files needs about "
            f"{needed / 1e9:,.2f} GB. Free some space, or name another --output_root."
        )


def _refuse_nesting(request: PrepareRequest) -> None:
    """The output must not be packed into itself."""
    if request.output_root.resolve().is_relative_to(request.images.resolve()):
        raise SelectionError(
            "--output_root lies inside --images, so the tar would be packed into itself. Choose another folder."
        )


def _files(
    folder: Path, above: tuple[tuple[int, int], ...], hidden: list[Path], linked: bool = False
) -> Iterator[tuple[Path, bool]]:
    """All files below `folder`, names sorted, links followed; and whether a link led to them.

    Args:
        above: device and inode of the folders that lead here; meeting one again is a circle.
        hidden: gets what is left out.
        linked: whether one of these folders was reached by a link.
    """
    status = folder.stat()
    if (status.st_dev, status.st_ino) in above:
        raise SelectionError(f"{show_name(folder)} is a link to a folder that contains it. Remove the link.")
    try:
        with os.scandir(folder) as found:
            entries = sorted(found, key=lambda entry: entry.name)
    except OSError as error:
        raise SelectionError(f"{show_name(folder)} cannot be listed: {error.strerror}.") from error
    for entry in entries:
        path, path_linked = Path(entry.path), linked or entry.is_symlink()
        if is_hidden(entry.name):
            hidden.append(path)
        elif entry.is_dir():
            yield from _files(path, (*above, (status.st_dev, status.st_ino)), hidden, path_linked)
        else:
            yield path, path_linked


class _Packer:
    """Writes files into a tar, one after the other; keeps nothing of them but the inodes of linked ones."""

    def __init__(self, file: BinaryIO):
        self.count = 0
        self._file = file
        self._linked: dict[tuple[int, int], str] = {}

    def add(self, path: Path, name: str, *, linked: bool) -> None:
        """Append one file under `name`; `linked` if it may be met again through links."""
        with _reading(path):
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its other end
                raise SelectionError(f"{show_name(path)} is not an ordinary file. Remove it from the folder.")
            source = path.open("rb")
        with source:
            self._append(source, os.fstat(source.fileno()), name, linked=linked)
        self.count += 1

    def close(self) -> None:
        """The end marker: two zero blocks, then zeros up to a whole record."""
        self._file.write(bytes(2 * BLOCK))
        self._file.write(bytes(-self._file.tell() % RECORD_BYTES))

    def _append(self, source: BinaryIO, status: os.stat_result, name: str, *, linked: bool) -> None:
        info = tarfile.TarInfo(name)
        info.mtime, inode = int(status.st_mtime), (status.st_dev, status.st_ino)
        if linked or status.st_nlink > 1:
            info.linkname = self._linked.setdefault(inode, name)
        if info.linkname not in ("", name):
            info.type = tarfile.LNKTYPE
            self._file.write(_header(info))
            return
        info.linkname, info.size = "", status.st_size
        self._file.write(_header(info))
        copied = self._copy(source)
        if copied != status.st_size:
            raise UserError(
                f"{show_name(source.name)} changed while it was packed: "
                f"expected {status.st_size:,} bytes, got {copied:,}."
            )
        self._file.write(bytes(-copied % BLOCK))

    def _copy(self, source: BinaryIO) -> int:
        copied = 0
        while True:
            with _reading(source.name):
                data = source.read(COPY_BYTES)
            if not data:
                return copied
            self._file.write(data)
            copied += len(data)


@contextmanager
def _reading(path: str | Path) -> Iterator[None]:
    """Blame a file that is packed for what goes wrong in the block, and only for that."""
    try:
        yield
    except OSError as error:
        raise SelectionError(
            f"{show_name(path)} cannot be read: {error.strerror}. A link to a file that is gone?"
        ) from error


def _header(info: tarfile.TarInfo) -> bytes:
    """GNU header blocks; bytes of a name that are not UTF-8 stay as they are."""
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")
