"""Indexes all tars of a folder, one cohort each; one that cannot be indexed does not keep the others from it."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from dinov2.data.hidden import is_hidden
from dinov2.data.tar_index.errors import SelectionError, show_name, show_names
from dinov2.data.tar_index.infer import IndexReport, IndexRequest, infer_entries
from dinov2.errors import UserError
from dinov2.utils.outputs import OutputError


@dataclass
class FolderReport:
    """What became of the tars, by name.

    Attributes:
        tiles: rows of all entries files.
        empty: those in which no tile was selected.
        refused: those that have no index, or still the one that they had.
    """

    indexed: int = 0
    tiles: int = 0
    empty: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)

    def line(self) -> str:
        """The summary, on one line."""
        text = f"{self.indexed + len(self.refused):,} tars: {self.indexed:,} indexed, {self.tiles:,} tiles"
        for what, names in (("without any", self.empty), ("refused", self.refused)):
            text += f"; {len(names):,} {what}: {show_names(names)}" if names else ""
        return text


def infer_all(
    source: Path, common: IndexRequest, *, tell: Callable[[Path, IndexReport | UserError], None]
) -> FolderReport:
    """Index each tar of a folder under its stem.

    Args:
        source: the folder.
        common: what holds for all of them; its tar and name do not matter.
        tell: called with what became of each tar, at once.
    Raises:
        UserError: nothing can be indexed at all, or written any more.
    """
    tars, report = _find_tars(source), FolderReport()
    common.check()
    for tar in tars:
        try:
            outcome = infer_entries(replace(common, tarball=tar, name=tar.stem))
        except OutputError:
            raise
        except UserError as error:
            report.refused.append(tar.name)
            tell(tar, error)
            continue
        report.indexed, report.tiles = report.indexed + 1, report.tiles + outcome.tiles
        report.empty += [] if outcome.tiles else [tar.name]
        tell(tar, outcome)
    return report


def _find_tars(source: Path) -> list[Path]:
    """The tars directly in a folder, those with numbers in the order of these."""
    try:
        found = [path for path in source.iterdir() if path.suffix == ".tar" and not is_hidden(path.name)]
    except OSError as error:
        raise SelectionError(f"--source {show_name(source)} cannot be listed: {error.strerror}.") from error
    if not found:
        raise SelectionError(f"--source {show_name(source)} has no .tar files; those of its subfolders do not count.")
    return sorted(found, key=_natural)


def _natural(path: Path) -> tuple[list[str | int], str]:
    parts = re.split(r"([0-9]+)", path.stem)
    return [int(part) if place % 2 else part for place, part in enumerate(parts)], path.name
