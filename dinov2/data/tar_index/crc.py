"""CRC-32 of every tile: `{name}_crc32[_{suffix}].npy`, (n,) uint32, row i for row i of the entries.

A decoder notices less than one in a hundred flipped bits of a JPEG; a CRC-32 notices every one. The name
avoids the word "entries", since older tools take every `.npy` file with it for a cohort.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import StaleIndexError, show_name
from dinov2.data.tar_index.fingerprint import current_record, entries_name, read_records, side_name
from dinov2.data.tar_index.numpy_files import load_vector


def crc_name(name: str | None, suffix: str | None = None) -> str:
    """File name of the CRC-32 values, for example pretrain_crc32_train.npy."""
    return side_name(name, "_".join(part for part in ("crc32", suffix) if part)) + ".npy"


def load_crc32(extra: str | Path, name: str | None, *, suffix: str | None = None) -> NDArray[np.uint32] | None:
    """CRC-32 of each tile, (n,) uint32, memory-mapped; None if they were never computed.

    Raises:
        StaleIndexError: they belong to other entries than the ones beside them.
    """
    path = Path(extra) / crc_name(name, suffix)
    if not path.exists():
        return None
    record = current_record(extra, name, path.name)
    if record is None or entries_name(name, suffix) not in record.needs:
        raise StaleIndexError(
            f"{show_name(path)} has no record of the entries it belongs to. "
            "Make it again with scripts/verify_dataset.py --write_crc, or delete it."
        )
    values: NDArray[np.uint32] = load_vector(path, dtype="<u4")
    return values


def drop_stale_crc(extra: Path, name: str | None, *, suffix: str | None = None) -> list[str]:
    """Delete values that were recorded for other entries than those there now; returns a warning if it did."""
    path = extra / crc_name(name, suffix)
    if not path.exists() or path.name not in read_records(extra, name):
        return []
    try:
        load_crc32(extra, name, suffix=suffix)
    except StaleIndexError:
        path.unlink()
        return [f"{show_name(path)} was of other entries and is deleted: run scripts/verify_dataset.py --write_crc"]
    return []
