"""Images named in a table."""

import csv
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.errors import UserError, unknown_name

from .class_labels import number_classes
from .file_tiles import FileTileDataset
from .name_table import NameTable
from .problems import Problems
from .repeats import check_repeats


class CSVListDataset(FileTileDataset):
    """`CSV:file=LIST.csv[:root=...][:column=...][:label=...]`: the images of a table with a header, in its order.

    Attributes:
        root: the folder that relative paths start from.
        classes: the labels in order, whole numbers by value; a single empty one where there are no labels.
    """

    def __init__(
        self, *, file: str, root: str | None = None, column: str | None = None, label: str | None = None, **options: Any
    ) -> None:
        """Read the table; only its first and last image are looked for at once, the others when they are read.

        Args:
            file: comma-separated UTF-8, the first row names the columns.
            root: by default the folder of the table.
            column: of the paths; by default the first one.
            label: column of the class labels.
            options: of `TileDataset`.
        Raises:
            UserError: if the table cannot be used, with row numbers; the header is row 1.
        """
        super().__init__(**options)
        self.file = Path(file)
        self.root = Path(root) if root is not None else self.file.parent
        self._names, labels, rows = _read(self.file, column, label)
        self._targets, self.classes = number_classes(labels)
        check_repeats(self._names, self._targets, rows, file=self.file)
        self._check_file(0, rows[0])
        self._check_file(len(self) - 1, rows[-1])

    def path_of(self, index: int) -> Path:
        """The image's path."""
        return self.root / self._names[index]

    def get_target(self, index: int) -> int:
        """Number of the label in `classes`; 0 without labels."""
        return int(self._targets[index])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return self._targets

    def __len__(self) -> int:
        return len(self._names)

    def _check_file(self, index: int, row: int) -> None:
        if not self.path_of(index).is_file():
            raise UserError(
                f"row {row} of list {self.file}: image {self.path_of(index)} does not exist. Relative paths start "
                f"from {self.root}; root=... changes that"
            )


def _read(file: Path, column: str | None, label: str | None) -> tuple[NameTable, NameTable, Sequence[int]]:
    """Paths, labels (empty ones without a label column) and row numbers of the images in a table."""
    table = _rows(file)
    _, header = next(table, (1, []))
    header = [name.strip() for name in header]
    if not header:
        raise UserError(f"list {file} is empty; expected a row with the names of the columns, then one for each image")
    path_at = 0 if column is None else _find(header, column, file)
    label_at = None if label is None else _find(header, label, file)
    names, labels, rows, problems = NameTable(), NameTable(), array("q"), Problems()
    for number, row in table:
        problem = _problem(row, len(header), path_at, label_at)
        if problem:
            problems.add(f"row {number}: {problem}")
            continue
        names.append(row[path_at])
        labels.append("" if label_at is None else row[label_at].strip())
        rows.append(number)
    problems.refuse(f"list {file} cannot be used")
    if not len(names):
        raise UserError(f"list {file} has a header and no images below it")
    return names, labels, rows


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """Row numbers, from 1, and cells; empty rows are left out."""
    try:
        with file.open(newline="", encoding="utf-8-sig") as lines:
            yield from ((number, row) for number, row in enumerate(csv.reader(lines), start=1) if row)
    except FileNotFoundError as error:
        raise UserError(f"list {file} does not exist") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"list {file} cannot be read as comma-separated UTF-8: {error}") from error


def _find(header: list[str], column: str, file: Path) -> int:
    if column not in header:
        raise unknown_name(f"column of {file}", column, header)
    if header.count(column) > 1:
        raise UserError(f"list {file} has {header.count(column)} columns that are called {column!r}")
    return header.index(column)


def _problem(row: list[str], num_columns: int, path_at: int, label_at: int | None) -> str | None:
    """What is wrong with a row."""
    if len(row) != num_columns:
        return f"it has {len(row)} cells, the header {num_columns}; a path that contains a comma goes into quotes"
    if not row[path_at].strip() or "\0" in row[path_at]:
        return f"the path {row[path_at]!r} cannot be one" if row[path_at] else "the path is empty"
    if label_at is not None and not row[label_at].strip():
        return "the label is empty"
    return None
