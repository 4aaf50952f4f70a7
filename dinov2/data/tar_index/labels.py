"""Label tables: which tile has which label, read from a csv file in one pass.

Labels may be whole numbers or texts; they become 0..K-1 in sorted order, so labels that are 0..K-1 already keep their
values. `dinov2.data.tables` tells what a cell means. A row that is missing something, or contradicts another, is an
error that names the row as a spreadsheet counts it (the heading is row 1).
"""

import csv
import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tables import clean, file_problem, heading_problem, label_problem, missing_problem, plain_label
from dinov2.data.tar_index.errors import LabelError, show_name
from dinov2.data.tar_index.names import NameTable

CHUNK_ROWS, CHUNK_BYTES = 1 << 11, 1 << 17
SHOWN_PROBLEMS = 10
INTEGER = re.compile(r"[+-]?[0-9]+")

Label = int | str
ClassTable = list[tuple[Label, str]]


@dataclass(frozen=True)
class LabelColumns:
    """Names of the csv columns, and how the label column is read.

    Attributes:
        class_name: a column that may be absent from the file; None for no such column.
        what: word for a label in messages and flags.
        as_text: whether labels stay as they are written, as names of slides do: "007" is not "7", and "1.5" is one.
    """

    file: str = "filename"
    label: str = "label"
    class_name: str | None = "class"
    what: str = "label"
    as_text: bool = False


class LabelTable:
    """Labels by file name.

    Attributes:
        names: the file names, in the order of the csv.
        classes: (label, class name) of each class; the position is the class index that entries hold.
        codes: (rows,) int32 class index of each row.
    """

    def __init__(self, path: str | Path, *, columns: LabelColumns):
        reader = _CsvReader(path, columns=columns)
        self.path, self._reader = path, reader
        self.names = NameTable(reader.names())
        reader.raise_problems()
        self.classes, order = _classes(reader.labels, reader.class_names, as_text=columns.as_text)
        self.codes = order[reader.codes()]
        self._check_repeated()
        self._used = np.zeros(len(self.codes), bool)

    def adopt(self, classes: ClassTable) -> None:
        """Use the class indices of another table that has all of these labels."""
        index_of = {label: index for index, (label, _) in enumerate(classes)}
        order = np.array([index_of[label] for label, _ in self.classes], np.int32)
        self.codes, self.classes = order[self.codes], classes

    def look_up(
        self, rows: tuple[NDArray[np.signedinteger], NDArray[np.signedinteger]], *, selected: NDArray[np.bool_]
    ) -> NDArray[np.int64]:
        """Class index of each member, (m,) int64; -1 where the csv does not have it.

        Args:
            rows: the two row arrays (m,) of `NameTable.find`.
            selected: (m,) whether the member will be in the index; only then an ambiguous name matters.
        """
        by_base, by_path = rows
        twice = (by_base >= 0) & (by_path >= 0) & selected
        if not len(self.codes):
            return np.full(len(by_base), -1)
        for i in np.flatnonzero(twice & (self.codes[by_base] != self.codes[by_path])):
            raise self._contradiction(int(by_base[i]), int(by_path[i]))
        row = np.where(by_path >= 0, by_path, by_base)
        self._used[row[selected & (row >= 0)]] = True
        return np.where(row >= 0, self.codes[row], -1)

    def count_ambiguous(self) -> int:
        """How many names stand for several members, at least one of which needs its label."""
        return int(np.count_nonzero((self.names.hits > 1) & self._used))

    def ambiguous(self, most: int) -> list[bytes]:
        """The first of these names, read from the csv again."""
        rows = np.flatnonzero((self.names.hits > 1) & self._used)[:most].tolist()
        return [name.encode("utf-8", "surrogateescape") for name, _ in self._reader.rows(rows)]

    def _check_repeated(self) -> None:
        for earlier, later in self.names.repeated():
            for i in np.flatnonzero(self.codes[earlier] != self.codes[later])[:1]:
                raise self._contradiction(int(earlier[i]), int(later[i]))

    def _contradiction(self, earlier: int, later: int) -> LabelError:
        claims, what = [], self._reader.columns.what
        rows = sorted((earlier, later))
        for row, (name, label) in zip(rows, self._reader.rows(rows), strict=True):
            claims.append(f"{show_name(name)} has {what} {show_name(label)} in row {self._reader.number(row):,}")
        return LabelError(
            f"{self._reader.shown}: {claims[0]} and {claims[1]}, but both stand for the same tile. "
            "Keep one of the rows."
        )


class _CsvReader:
    """One pass over the csv; collects labels by number and every problem by row."""

    def __init__(self, path: str | Path, *, columns: LabelColumns):
        self.path, self.columns, self.shown = path, columns, show_name(path)
        self.labels: list[str] = []
        self.class_names: dict[str, str] = {}
        self._numbers: dict[str, int] = {}
        self._codes: list[NDArray[np.int32]] = []
        self._problems: list[str] = []
        self._rows = self._seen = 0
        self._blanks: list[int] = []

    def names(self) -> Iterator[list[bytes]]:
        """File names in chunks; labels, classes and problems are collected on the way."""
        for files, labels, *class_names in self._chunks():
            names = _encoded(files)
            self._take_labels(labels)
            for column in class_names:
                self._take_classes(labels, column)
            if b"" in names:
                self._problem(self._rows + names.index(b""), "the file name is missing")
            self._rows += len(names)
            yield names

    def codes(self) -> NDArray[np.int32]:
        """(rows,) int32: each row's position in `labels`."""
        return np.concatenate([np.zeros(0, np.int32), *self._codes])

    def rows(self, wanted: list[int]) -> list[tuple[str, str]]:
        """File name and label of some rows, ascending, found by reading the file again."""
        found, first = [], 0
        for files, labels, *_ in self._chunks():
            last = first + len(files)
            here = wanted[bisect_left(wanted, first) : bisect_left(wanted, last)]
            found += [(files[row - first].strip(), labels[row - first].strip()) for row in here]
            first = last
        return found

    def raise_problems(self) -> None:
        """One error for all problems found."""
        bad = np.array([_label_problem(label, self.columns) is not None for label in self.labels], bool)
        codes = self.codes()
        rows = np.flatnonzero(bad[codes]) if bad.any() else np.zeros(0, np.int64)
        for row in rows[:SHOWN_PROBLEMS].tolist():
            self._problem(row, _label_problem(self.labels[codes[row]], self.columns) or "")
        if self._problems:
            more = len(self._problems) + max(0, len(rows) - SHOWN_PROBLEMS) - min(len(self._problems), SHOWN_PROBLEMS)
            listed = "\n  ".join(self._problems[:SHOWN_PROBLEMS])
            raise LabelError(f"{self.shown} cannot be used:\n  {listed}" + (f"\n  and {more:,} more" if more else ""))

    def number(self, row: int) -> int:
        """The number under which a spreadsheet shows a row: the heading is 1, blank lines count."""
        return row + 2 + bisect_right(self._blanks, row)

    def _chunks(self) -> Iterator[list[list[str]]]:
        """The wanted columns of the next rows: file names, labels, and class names if there are any."""
        self._blanks, self._seen, reader = [], 0, None
        try:
            if problem := file_problem(Path(self.path)):
                raise LabelError(f"{self.shown} {problem}.")
            with open(self.path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
                reader = csv.reader(file)
                heading = next(reader, [])
                places = self._places(heading)
                while (lines := file.readlines(CHUNK_BYTES)) and (columns := _split(lines, len(heading))):
                    self._seen += len(lines)
                    yield [columns[place] for place in places]
                reader = csv.reader(chain(lines, file))
                while chunk := list(islice(reader, CHUNK_ROWS)):
                    rows = self._padded(self._without_blanks(chunk), max(places))
                    yield [[row[place] for row in rows] for place in places]
        except OSError as error:
            raise LabelError(f"{self.shown} cannot be read: {error.strerror}. Check --csv.") from error
        except csv.Error as error:
            raise LabelError(
                f"{self.shown}: row {self.number(self._seen):,} or the next is not csv: {error}."
            ) from error

    def _without_blanks(self, chunk: list[list[str]]) -> list[list[str]]:
        """The rows that have fields; notes before which row each blank line stood."""
        if all(chunk):
            self._seen += len(chunk)
            return chunk
        for row in chunk:
            if row:
                self._seen += 1
            else:
                self._blanks.append(self._seen)
        return [row for row in chunk if row]

    def _places(self, heading: Sequence[str]) -> list[int]:
        """Where the wanted columns stand."""
        heading = [clean(column) for column in heading]
        wanted = [self.columns.file, self.columns.label]
        if self.columns.class_name in heading:
            wanted.append(self.columns.class_name or "")
        problem = heading_problem(heading, wanted)
        if problem is not None:
            flags = f" Name columns with --file_name and --{self.columns.what}_name." if "no column" in problem else ""
            raise LabelError(f"{self.shown} {problem}.{flags}")
        return list(map(heading.index, wanted))

    def _padded(self, chunk: list[list[str]], wide: int) -> list[list[str]]:
        """Rows with too few fields are noted and filled up, so that counting goes on."""
        if min(map(len, chunk), default=wide + 1) > wide:
            return chunk
        for i, row in enumerate(chunk):
            if len(row) <= wide:
                self._problem(self._rows + i, f"the row has {len(row)} fields, expected at least {wide + 1}")
                chunk[i] = row + ["-"] * (wide + 1 - len(row))
        return chunk

    def _take_labels(self, labels: list[str]) -> None:
        for label in sorted(set(labels) - self._numbers.keys()):
            self._numbers[label] = len(self.labels)
            self.labels.append(self._plain(label))
        self._codes.append(np.fromiter(map(self._numbers.__getitem__, labels), np.int32, len(labels)))

    def _take_classes(self, labels: list[str], class_names: list[str]) -> None:
        pairs = list(zip(labels, class_names, strict=True))
        for label, class_name in sorted(set(pairs), key=pairs.index):
            known = self.class_names.setdefault(self._plain(label), class_name.strip())
            if known != class_name.strip():
                row = self._rows + pairs.index((label, class_name))
                text = f"label {show_name(label)} is called {show_name(class_name)}, elsewhere {show_name(known)}"
                self._problem(row, text)

    def _plain(self, label: str) -> str:
        return clean(label) if self.columns.as_text else plain_label(label)

    def _problem(self, row: int, text: str) -> None:
        self._problems.append(f"row {self.number(row):,}: {text}")


def _split(lines: list[str], width: int) -> list[list[str]] | None:
    """The columns of lines that commas alone divide, at several times the speed of the csv module; else None."""
    text = "".join(lines).replace("\r\n", "\n")
    if '"' in text or "\r" in text or set(map(str.count, lines, repeat(","))) != {width - 1}:
        return None
    fields = text.replace("\n", ",").split(",")
    return [fields[place : len(lines) * width : width] for place in range(width)]


def _encoded(names: list[str]) -> list[bytes]:
    """The names as a tar stores them, without blanks around them.

    All at once, which is several times faster than one by one.
    """
    joined = "\0".join(names)
    if any(blank in joined for blank in " \t\r\n") or joined.count("\0") >= len(names):
        return [name.strip().encode("utf-8", "surrogateescape") for name in names]
    return joined.encode("utf-8", "surrogateescape").split(b"\0")


def _label_problem(label: str, columns: LabelColumns) -> str | None:
    """What is wrong with the text of a label; None if nothing is."""
    if not columns.as_text and re.search("[\udc80-\udcff]", label):
        return f"the {columns.what} {show_name(label)} is not in UTF-8: save the csv with that encoding"
    return (missing_problem if columns.as_text else label_problem)(label, what=columns.what)


def _classes(labels: list[str], class_names: dict[str, str], *, as_text: bool) -> tuple[ClassTable, NDArray[np.int32]]:
    """Classes in sorted order, and the class index of each label in the order given, (K,) int32."""
    whole = not as_text and all(INTEGER.fullmatch(label) for label in labels)
    values: list[Label] = [int(label) if whole else label for label in labels]
    ordered: list[Label] = sorted(set(values))  # type: ignore[type-var]
    index_of = {label: index for index, label in enumerate(ordered)}
    named: dict[Label, str] = {}
    for value, label in zip(values, labels, strict=True):
        name = class_names.get(label, f"class_{value}")
        if named.setdefault(value, name) != name:
            raise LabelError(
                f"label {show_name(str(value))} is called {show_name(named[value])} and {show_name(name)}."
            )
    return [(label, named[label]) for label in ordered], np.array([index_of[value] for value in values], np.int32)
