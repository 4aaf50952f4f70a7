"""Images named in a table."""

import csv
import os
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.data.groups import Groups, UnknownGroupsError
from dinov2.data.tables import clean, file_problem, heading_problem, label_problem, missing_problem, plain_label
from dinov2.errors import UserError

from .class_labels import number_classes
from .file_tiles import FileTileDataset
from .name_table import NameTable
from .problems import Problems
from .repeats import check_repeats

GROUP_KEYS = {"slide": "group", "site": "site"}  # the key that names the column, by kind of groups


class CSVListDataset(FileTileDataset):
    """`CSV:file=LIST.csv[:root=...][:column=...][:label=...][:group=...][:site=...]`: the images of a table, in order.

    Attributes:
        root: the folder that relative paths start from.
        classes: the labels in order, whole numbers by value; a single empty one where there are no labels.
    """

    def __init__(
        self,
        *,
        file: str,
        root: str | None = None,
        column: str | None = None,
        label: str | None = None,
        group: str | None = None,
        site: str | None = None,
        **options: Any,
    ) -> None:
        """Read the table; only its first and last image are looked for at once, the others when they are read.

        Args:
            file: comma-separated UTF-8, the first row names the columns.
            root: by default the folder of the table.
            column: of the paths; by default the first one.
            label: column of the class labels.
            group: column of the slides, or better of the patients, that images are of.
            site: column of the sites that they come from: hospitals, laboratories, scanners.
            options: of `TileDataset`.
        Raises:
            UserError: if the table cannot be used, with row numbers; the header is row 1.
        """
        super().__init__(**options)
        self.file = Path(file)
        self.root = Path(root) if root is not None else self.file.parent
        self._column = column
        wanted = {"path": column, "label": label, "slide": group, "site": site}
        cells, rows, self._header = _read(self.file, wanted)
        self._names = cells["path"]
        self._targets, self.classes = number_classes(cells["label"] if label is not None else [""] * len(rows))
        self._groups = {kind: number_classes(cells[kind], by_value=False) for kind in GROUP_KEYS if kind in cells}
        check_repeats(self._names, self._targets, rows, file=self.file)
        self._check_file(0, rows[0])
        self._check_file(len(self) - 1, rows[-1])

    def path_of(self, index: int) -> Path:
        """The image's path."""
        return self.root / self._names[index]

    def name_arrays(self) -> Iterable[np.ndarray]:
        """Paths as the table has them; from the folder that they share on, where the first one is absolute."""
        if not self._names[0].startswith("/"):
            return self._names.arrays()
        shared = os.path.commonpath([min(self._names), max(self._names)])
        return NameTable(name.removeprefix(shared) for name in self._names).arrays()

    def get_target(self, index: int) -> int:
        """Number of the label in `classes`; 0 without labels."""
        return int(self._targets[index])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return self._targets

    def get_groups(self, kind: str) -> Groups:
        """The slides or patients of the column `group`, or the sites of the column `site`.

        Raises:
            UnknownGroupsError: if no column was named.
        """
        if kind not in GROUP_KEYS:
            return super().get_groups(kind)
        if kind not in self._groups:
            raise UnknownGroupsError(
                f"the {kind} of each image of list {self.file} is not known: name its column with "
                f"{GROUP_KEYS[kind]}=COLUMN; it has the columns {', '.join(self._header)}"
            )
        numbers, names = self._groups[kind]
        return Groups.from_column(numbers, dict(enumerate(names)))

    def __len__(self) -> int:
        return len(self._names)

    def _check_file(self, index: int, row: int) -> None:
        if not self.path_of(index).is_file():
            by_default = f". It is of the first column, {self._header[0]!r}; column=... names another one"
            raise UserError(
                f"row {row} of list {self.file}: image {self.path_of(index)} does not exist. Relative paths start "
                f"from {self.root}; root=... changes that{'' if self._column or len(self._header) == 1 else by_default}"
            )


def _read(file: Path, columns: Mapping[str, str | None]) -> tuple[dict[str, NameTable], Sequence[int], list[str]]:
    """Cells of the columns that are named, row numbers of the images, and the header.

    Args:
        columns: their names by what they hold; the one of paths is the first one if it has no name.
    """
    table = _rows(file)
    _, header = next(table, (1, []))
    header = [clean(name) for name in header]
    wanted = {what: name for what, name in columns.items() if name is not None}
    first = header[:1] if wanted and "path" not in wanted else []
    if problem := heading_problem(header, [*wanted.values(), *first]):
        raise UserError(f"list {file} {problem}")
    places = {what: header.index(name) for what, name in wanted.items()}
    path_at = places.pop("path", 0)
    cells, rows, problems = {what: NameTable() for what in ("path", *places)}, array("q"), Problems()
    for number, row in table:
        problem = _problem(row, len(header), path_at, places)
        if problem:
            problems.add(f"row {number}: {problem}")
            continue
        cells["path"].append(row[path_at])
        for what, place in places.items():
            cells[what].append(plain_label(row[place]) if what == "label" else clean(row[place]))
        rows.append(number)
    problems.refuse(f"list {file} cannot be used")
    if not rows:
        raise UserError(f"list {file} has a header and no images below it")
    return cells, rows, header


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Row numbers, from 1, and cells; empty rows are left out."""
    try:
        if problem := file_problem(file):
            raise UserError(f"list {file} {problem}")
        with file.open(newline="", encoding="utf-8-sig") as lines:
            yield from ((number, row) for number, row in enumerate(csv.reader(lines), start=1) if row)
    except FileNotFoundError as error:
        raise UserError(f"list {file} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"list {file} cannot be read as comma-separated UTF-8: {error}") from error


def _problem(row: list[str], num_columns: int, path_at: int, places: Mapping[str, int]) -> str | None:
    """What is wrong with a row; no value at `places` may be missing."""
    if len(row) != num_columns:
        return f"it has {len(row)} cells, the header {num_columns}; a path that contains a comma goes into quotes"
    if not row[path_at].strip() or "\0" in row[path_at]:
        return f"the path {row[path_at]!r} cannot be one" if row[path_at] else "the path is empty"
    checks = {"label": label_problem}
    found = (checks.get(what, missing_problem)(row[place], what=what) for what, place in places.items())
    return next((problem for problem in found if problem), None)
