"""Tiles in tars, found through an index of byte ranges (see scripts/infer_entries.py)."""

import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.data.file_reader import FileReader, RowReader
from dinov2.data.groups import Groups, UnknownGroupsError, cohort_groups
from dinov2.data.tar_index.crc import crc_name, load_crc32
from dinov2.data.tar_index.fingerprint import check_tars, entries_name, fingerprint
from dinov2.data.tar_index.group_files import GROUP_KINDS, load_groups
from dinov2.data.tar_index.headers import BLOCK
from dinov2.data.tar_index.numpy_files import load_entries
from dinov2.data.tar_index.tile_check import stored_name
from dinov2.errors import UserError

from .base import TileDataset, TilePlace
from .digests import TileDigest
from .handles import Handles

# Columns of the index; the last one only where there are several tars.
CLASS, FILE, START, END, COHORT = range(5)
MAX_OPEN_TARS = 256

logger = logging.getLogger("dinov2")


class TarTileDataset(TileDataset):
    """Tiles at the byte ranges of an index: (n, 4) uint64 of one tar, or (n, 5) of several.

    Rows of the index and CRC-32 values are read when they are needed: no tile has a Python object, and a process's
    memory does not grow with the number of tiles.
    """

    def __init__(
        self, *, tarballs: Mapping[int, Path], extra: Path, name: str, subset: str | None = None, **options: Any
    ) -> None:
        """Check the index extra/{name}_entries[_{subset}].npy against the tars.

        Args:
            tarballs: by the number in the index's fifth column; a single tar has number 0.
            options: of `TileDataset`.
        Raises:
            UserError: if a file is missing, the index is empty, or it belongs to another tar.
        """
        super().__init__(**options)
        self.extra, self.name, self.subset = extra, name, subset
        self.entries_file = extra / entries_name(name, subset)
        advice = "The tiles are packed with `tar -chf` into the folder that `root=` names."
        self.readers = {number: FileReader(path, advice=advice) for number, path in tarballs.items()}
        if not self.entries_file.is_file():
            raise UserError(f"index {self.entries_file} does not exist. It is made with `{self.indexing_command()}`")
        check_tars(extra, name, tarballs, suffix=subset)
        self._rows = RowReader(self.entries_file, dtype="<u8")
        self._crc32 = None
        if load_crc32(extra, name, suffix=subset) is not None:
            self._crc32 = RowReader(extra / crc_name(name, subset), dtype="<u4")
        else:
            first = next(iter(self.readers.values())).path
            logger.info(
                f"no CRC-32 is recorded for {self.entries_file}, so that nobody notices changed bytes: `python "
                f"scripts/verify_dataset.py --tarball_path {first if len(self.readers) == 1 else first.parent} "
                f"--output_root {extra} --name {name}{f' --suffix {subset}' if subset else ''} --write_crc` records it"
            )
        self._open: Handles[FileReader] = Handles(MAX_OPEN_TARS)
        if len(self) == 0:
            raise UserError(f"index {self.entries_file} is empty: no tile was selected")

    def indexing_command(self) -> str:
        """What makes the index, for the message that it is missing."""
        suffix = f" --suffix {self.subset}" if self.subset else ""
        return (
            f"python scripts/infer_entries.py --tarball_path {self.readers[0].path} --output_root {self.extra} "
            f"--name {self.name}{suffix}"
        )

    @property
    def entries(self) -> np.ndarray:
        """The whole index, (n, 4) or (n, 5) uint64, memory-mapped."""
        return load_entries(self.entries_file)

    def get_image_data(self, index: int) -> bytes:
        """The encoded image, as it was indexed.

        Raises:
            TileReadError: if the storage fails or the bytes have another CRC-32 than the recorded one.
            FileChangedError: if the tar is not what it was when it was opened.
        """
        reader, start, end = self._range(index)
        try:
            data = reader.read(start, end)
        except OSError as error:
            raise self.bad_tile(index, f"cannot be read: {error.strerror}") from error
        if self._crc32 is not None:
            expected, found = int(self._crc32[index][0]), zlib.crc32(data)
            if found != expected:
                reason = f"was changed since it was indexed: expected CRC-32 {expected:08x}, got {found:08x}"
                raise self.bad_tile(index, reason)
        return data

    def get_target(self, index: int) -> int:
        """The class index; 0 where the index was made without labels."""
        return int(self._rows[index][CLASS])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return np.asarray(self.entries[:, CLASS], dtype=np.int64)

    def get_groups(self, kind: str) -> Groups:
        """The slides or sites that scripts/group_entries.py has found, or the cohorts of several tars.

        Raises:
            UnknownGroupsError: if there is no such information.
            UserError: if it is of another index.
        """
        if kind == "cohort" and len(self.entries[0]) > COHORT:
            return cohort_groups(self.entries, {number: reader.path.stem for number, reader in self.readers.items()})
        if kind == "patient":
            return super().get_groups(kind)
        known = kind in GROUP_KINDS
        groups = load_groups(self.extra, self.name, suffix=self.subset, kind=kind) if known else None
        if groups is None:
            made = f"group_entries.py --kind {kind}" if known else "concat_entries.py, which joins cohorts"
            raise UnknownGroupsError(
                f"the {kind} of each tile of {self.entries_file} is not known: it is found by scripts/{made}"
            )
        return groups

    def digest(self) -> str:
        """That of the order, and of the checksums if there are any: tars have no place in it anyway."""
        return TileDigest(self.order_digest(), self.checksums_digest() or "").hexdigest()

    def order_digest(self) -> str:
        """SHA-256 over the fingerprints of the tars and the byte ranges."""
        digest = TileDigest()
        for number, reader in self.readers.items():
            found = fingerprint(reader.path)
            digest.add_texts([f"{number} {found.size} {found.sha256}"])
        digest.add_array(self.entries[:, START:])
        return digest.hexdigest()

    def checksums_digest(self) -> str | None:
        """SHA-256 over the CRC-32 values."""
        crc32 = load_crc32(self.extra, self.name, suffix=self.subset)
        if crc32 is None:
            return None
        digest = TileDigest()
        digest.add_array(crc32)
        return digest.hexdigest()

    def locate(self, index: int) -> TilePlace:
        """The tar, the name in the header before the tile, and its bytes."""
        reader, start, end = self._range(index)
        try:
            header = reader.read(max(0, start - BLOCK), start)
        except (OSError, UserError):
            header = b""
        return TilePlace(str(reader.path), stored_name(header), start, end)

    def __len__(self) -> int:
        return len(self._rows)

    def _range(self, index: int) -> tuple[FileReader, int, int]:
        """The tar of a tile, its first byte and the one after its last."""
        row = self._rows[index]
        number = int(row[COHORT]) if len(row) > COHORT else 0
        if number not in self.readers:
            raise UserError(f"row {index:,} of {self.entries_file} has the cohort number {number}, which has no tar")
        reader = self._open.get(number, lambda: self.readers[number])
        return reader, int(row[START]), int(row[END])
