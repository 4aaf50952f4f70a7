"""From a folder of images to everything that training reads: a tar, its index, and the CRC-32 of every tile.

The tar has what `tar -chf` would store of the folder's content, in sorted order and GNU format: symbolic links are
followed, and a file met again through links becomes a hard link (a file met first without one is stored again,
since remembering all of them would cost memory). It is the same, byte for byte, wherever the files are the same:
owners and permissions are left out.
"""

import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from dinov2.data.tar_index.errors import SelectionError, show_name
from dinov2.data.tar_index.headers import BLOCK
from dinov2.data.tar_index.infer import IndexReport, IndexRequest, check_file_part, infer_entries
from dinov2.data.tar_index.progress import byte_progress
from dinov2.data.tar_index.staging import Staging
from dinov2.data.tar_index.verify import VerifyReport, VerifyRequest, verify_dataset
from dinov2.errors import UserError
from dinov2.utils.dataset_strings import join_dataset_string

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

    @property
    def tar(self) -> Path:
        """The archive to make."""
        return self.output_root / f"{self.name}_dataset.tar"

    @property
    def dataset_string(self) -> str:
        """What to write into the configuration."""
        root = str(self.output_root.resolve())
        return join_dataset_string("Pathology", [("root", root), ("extra", root)])


def prepare_dataset(request: PrepareRequest) -> tuple[IndexReport, VerifyReport]:
    """Make the tar, index it, read every tile back and record its CRC-32.

    Raises:
        UserError: the folder cannot be packed; a tar that was there is left as it was.
    """
    check_file_part(request.name, flag="--name")
    if not request.images.is_dir():
        raise SelectionError(f"--images {show_name(request.images)} is not a folder.")
    if request.tar.exists() and not request.overwrite:
        raise SelectionError(f"{show_name(request.tar)} exists. Choose another --name, or replace it with --overwrite.")
    _refuse_nesting(request)
    request.output_root.mkdir(parents=True, exist_ok=True)
    pack(request.images, request.tar)
    index = infer_entries(IndexRequest(request.tar, request.output_root, request.name))
    check = VerifyRequest(request.tar, request.output_root, request.name, workers=request.workers, write_crc=True)
    return index, verify_dataset(check)


def pack(folder: Path, tar: Path) -> int:
    """Write all files of `folder` into `tar`, which appears only when it is complete; returns how many.

    Raises:
        UserError: a file cannot be read or changes, links go in circles, or there is none.
    """
    with Staging(tar.parent) as staging, byte_progress(0, title="packing", unit="files") as advance:
        file = staging.open(tar.name)
        packer = _Packer(file)
        for path, linked in _files(folder, ()):
            packer.add(path, str(path.relative_to(folder)), linked=linked)
            advance(file.tell(), packer.count)
        if not packer.count:
            raise SelectionError(f"{show_name(folder)} has no files.")
        packer.close()
        staging.publish()
    return packer.count


def _refuse_nesting(request: PrepareRequest) -> None:
    """The output must not be packed into itself."""
    if request.output_root.resolve().is_relative_to(request.images.resolve()):
        raise SelectionError(
            "--output_root lies inside --images, so the tar would be packed into itself. Choose another folder."
        )


def _files(folder: Path, above: tuple[tuple[int, int], ...], linked: bool = False) -> Iterator[tuple[Path, bool]]:
    """All files below `folder`, names sorted, links followed; and whether a link led to them.

    Args:
        above: device and inode of the folders that lead here; meeting one again is a circle.
        linked: whether one of these folders was reached by a link.
    """
    status = folder.stat()
    if (status.st_dev, status.st_ino) in above:
        raise SelectionError(f"{show_name(folder)} is a link to a folder that contains it. Remove the link.")
    try:
        with os.scandir(folder) as found:
            names = sorted(entry.name for entry in found)
    except OSError as error:
        raise SelectionError(f"{show_name(folder)} cannot be listed: {error.strerror}.") from error
    for name in names:
        path = folder / name
        path_linked = linked or path.is_symlink()
        if path.is_dir():
            yield from _files(path, (*above, (status.st_dev, status.st_ino)), path_linked)
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
