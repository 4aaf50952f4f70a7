"""What cells and headings of csv files mean: missing values, labels, separators; one rule for lists of images and tars.

The functions give the rest of a sentence about the file or the row, so that every reader raises its own error.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from dinov2.errors import unknown_name

# What pandas, R, SQL and spreadsheets write where there is no value, in lower case.
_MISSING = frozenset(
    {"", "nan", "-nan", "na", "n/a", "n.a.", "#n/a", "#na", "none", "null", "nil", "<na>", "nat", ".", "?"}
    | {"#n/a n/a", "#value!", "#ref!", "#name?", "#div/0!", "#num!", "#null!"}
)
_WHOLE = re.compile(r"([+-]?[0-9]+)(?:\.0*)?")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?|[+-]?inf(inity)?", re.IGNORECASE)
_DECIMAL_COMMA = re.compile(r"[+-]?[0-9]+,[0-9]+")
_IMAGE = re.compile(r".+\.(jpe?g|png|tiff?|bmp|webp)", re.IGNORECASE)
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}
_HEAD_BYTES = 4096
# How files begin that are given for csv files.
_SIGNATURES = {
    b"PK\x03\x04": "a spreadsheet (.xlsx, .ods) or zip file",
    b"\xd0\xcf\x11\xe0": "an old Excel file (.xls)",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "compressed with gzip",
    b"\x89HDF": "an HDF5 file",
    b"\x93NUMPY": "a NumPy file",
}
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
_SAVE = 'save it as comma-separated UTF-8 ("CSV UTF-8" in Excel, df.to_csv(FILE, index=False) in pandas)'


def clean(text: str) -> str:
    """A cell without the blanks and invisible marks around it, among them those of spreadsheets and web pages."""
    return text.strip().strip("\ufeff\u200b").strip()


def is_missing(text: str) -> bool:
    """Whether a cell says that there is no value: empty, blank, "nan", "NA", "None" and the like, in any case."""
    return clean(text).lower() in _MISSING


def plain_label(text: str) -> str:
    """A label as classes are told apart by: without blanks, composed (NFC), and 1 for "1.0"."""
    text = unicodedata.normalize("NFC", clean(text))
    whole = _WHOLE.fullmatch(text)
    return str(int(whole[1])) if whole and "." in text else text


def missing_problem(text: str, *, what: str) -> str | None:
    """What is wrong with a cell that has to have a value; None if it has one."""
    if not is_missing(text):
        return None
    shown = f' ("{clean(text)}"); if that is a name, write another one' if clean(text) else ""
    return f"the {what} is missing{shown}"


def label_problem(text: str, *, what: str = "label") -> str | None:
    """What is wrong with the cell of a label; None for a whole number from 0 on, and for other text."""
    text = clean(text)
    if missing := missing_problem(text, what=what):
        return missing
    if _DECIMAL_COMMA.fullmatch(text):
        return f'the {what} "{text}" is a number with a decimal comma: expected a whole number or a name'
    whole = _WHOLE.fullmatch(text)
    if whole is None and _NUMBER.fullmatch(text):
        return f'the {what} "{text}" is not a whole number'
    if whole is not None and int(whole[1]) < 0:
        return (
            f'the {what} "{text}" may be a class or stand for "not known": leave the rows out if it is not known, or '
            'write a name, such as "negative", if it is a class'
        )
    return None


def file_problem(file: Path) -> str | None:
    """What a file is, by how it begins, if it is no text that csv can be; None if it may be csv in UTF-8.

    Raises:
        OSError: it cannot be read.
    """
    with file.open("rb") as stream:
        head = stream.read(_HEAD_BYTES)
    for signature, kind in _SIGNATURES.items():
        if head.startswith(signature):
            return f"is {kind}, not text: {_SAVE}"
    if head.startswith(_UTF_16) or b"\0" in head:
        return f'is UTF-16 or binary, as spreadsheets save "Unicode text": {_SAVE}'
    return None


def heading_problem(heading: Sequence[str], wanted: Sequence[str] = ()) -> str | None:
    """What is wrong with the first row of a csv file.

    Args:
        heading: its cells.
        wanted: names of the columns that are to be read; the first one is if there are none.
    """
    heading = [clean(name) for name in heading]
    if not any(heading):
        return "is empty: expected a row with the names of the columns, then one for each image"
    missing = [name for name in wanted if name not in heading]
    if heading[0].lower().startswith("sep="):
        return f'begins with a line that only Excel knows, "{heading[0]}": remove it, and {_SAVE}'
    separator = _other_separator(heading, missing)
    if separator is not None:
        return f"has {separator} between its columns, expected commas: {_resaved(separator)}"
    if any(map(_IMAGE.fullmatch, heading)) and (missing or not wanted):
        image = next(filter(_IMAGE.fullmatch, heading))
        return f'begins with an image, "{image:.80}": expected a first row with the names of the columns'
    if missing:
        return f"has no column {missing[0]!r}; it has the columns {', '.join(heading):.500}{_hint(missing[0], heading)}"
    for name in wanted or heading[:1]:
        if heading.count(name) > 1:
            return f"has {heading.count(name)} columns that are called {name!r}: rename or remove all but one"
    return None


def _other_separator(heading: Sequence[str], missing: Sequence[str]) -> str | None:
    """What separates the columns if it is not commas; None if it seems to be commas."""
    text = ",".join(heading)
    if len(heading) == 1 or missing:
        for mark, name in _SEPARATORS.items():
            if mark in text:
                return name
        if any(name in text.split() for name in missing):
            return "blanks"
    return None


def _resaved(separator: str) -> str:
    """What to type where other things than commas separate the columns."""
    mark = {"semicolons": ";", "tabs": r"\t", "bars": "|", "blanks": r"\s+"}.get(separator, ";")
    decimal = ', decimal=","' if mark == ";" else ""
    return f'{_SAVE}; from Python: pandas.read_csv(FILE, sep="{mark}"{decimal}).to_csv(NEW, index=False)'


def _hint(name: str, known: Sequence[str]) -> str:
    """The nearest of the known columns, as the end of a message."""
    folded = {column.casefold(): column for column in known}
    if name.casefold() in folded:
        return f"; did you mean {folded[name.casefold()]}?"
    message = str(unknown_name("column", name, known))
    return f"; {message.partition(': ')[2]}" if "did you mean" in message else ""
