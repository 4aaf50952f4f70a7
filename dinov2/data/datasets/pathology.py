"""Unlabelled tiles to train on: those of one tar, or of several cohorts."""

from pathlib import Path
from typing import Any

from dinov2.data.tar_index.concat import JOINED, joined_cohorts
from dinov2.data.tar_index.fingerprint import entries_name
from dinov2.errors import UserError

from .tar_tiles import TarTileDataset


class PathologyDataset(TarTileDataset):
    """`Pathology:root=...:extra=...[:subset=...]`: tiles of `pretrain_dataset.tar`."""

    def __init__(self, *, root: str, extra: str, subset: str | None = None, **options: Any) -> None:
        """Open root/pretrain_dataset.tar through extra/pretrain_entries[_{subset}].npy."""
        tarballs = {0: Path(root, "pretrain_dataset.tar")}
        super().__init__(tarballs=tarballs, extra=Path(extra), name=JOINED, subset=subset, **options)


class PathologyFoundationDataset(TarTileDataset):
    """`PathologyFoundation:root=...:extra=...[:subset=...]`: tiles of several cohorts, root/{cohort}.tar each."""

    def __init__(self, *, root: str, extra: str, subset: str | None = None, **options: Any) -> None:
        """Open the cohorts' tars through extra/pretrain_entries[_{subset}].npy.

        Raises:
            UserError: if a file is missing or the index is of a single tar.
        """
        if not Path(extra, entries_name(JOINED, subset)).is_file():
            raise UserError(
                f"index {Path(extra, entries_name(JOINED, subset))} does not exist. It is made with `python "
                f"scripts/concat_entries.py --root {extra} --output_root {extra}"
                f"{f' --suffix {subset}' if subset else ''}` from the index of each cohort"
            )
        self.cohorts = joined_cohorts(extra, suffix=subset)
        tarballs = {number: Path(root, f"{cohort}.tar") for number, cohort in self.cohorts.items()}
        super().__init__(tarballs=tarballs, extra=Path(extra), name=JOINED, subset=subset, **options)
