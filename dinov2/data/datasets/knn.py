"""Labelled tiles for evaluation: query tiles vote on test tiles."""

from pathlib import Path
from typing import Any

from dinov2.errors import UserError, unknown_name

from .tar_tiles import TarTileDataset

SPLITS = ("query", "test")


class KNNDataset(TarTileDataset):
    """`KNN:root=...:extra=...:split=query|test[:subset=...]`: tiles of `downstream_dataset.tar`."""

    def __init__(self, *, root: str, extra: str, split: str, subset: str | None = None, **options: Any) -> None:
        """Open root/downstream_dataset.tar through extra/{split}_entries[_{subset}].npy.

        Raises:
            UserError: for an unknown split, or an index without labels.
        """
        if split not in SPLITS:
            raise unknown_name("split", split, SPLITS)
        self.split = split
        tarballs = {0: Path(root, "downstream_dataset.tar")}
        super().__init__(tarballs=tarballs, extra=Path(extra), name=split, subset=subset, **options)
        self.class_ids_file = Path(extra, "class-ids.npy")
        if not self.class_ids_file.is_file():
            raise UserError(
                f"{self.class_ids_file} does not exist, so {self.entries_file.name} has no labels: index the tarball "
                "again with `--csv`, a table of file names and labels"
            )
