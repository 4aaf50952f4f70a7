"""The grammar of data set strings: `Name:key=value:key="a value with : in it"`.

A value that has a ":" or begins with a quotation mark stands in double or single quotes. Inside them the same mark is
written twice, `"a ""b"" c"`, and nothing else is special, backslashes included, so that every path can be written.
Which names and keys there are is the business of `dinov2.data.datasets.registry`.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from dinov2.errors import UserError

# A part, and what follows it: the ":" before another one, or the end.
_PART = re.compile(
    r"""([A-Za-z_]\w*)=("(?:[^"]|"")*"|'(?:[^']|'')*'|[^:"'][^:]*)(?::(?=.)|\Z)""",
    re.DOTALL,
)
# Keys whose values are paths.
PATH_KEYS = ("root", "extra", "file", "held_out_list")
# Files that --input-dir takes, and the data sets that read them.
INPUT_FILES = {".h5": "HDF5", ".hdf5": "HDF5", ".csv": "CSV"}
_PLAIN = re.compile(r"[\w./+@~-]+")  # what needs no quotes, here and in a YAML list


def split_dataset_string(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The name and the (key, value) pairs of a data set string, in order.

    Raises:
        UserError: if it does not follow the grammar.
    """
    name, colon, rest = text.partition(":")
    if colon and not rest:
        raise _not_understood(text, colon)
    pairs, position = [], 0
    while position < len(rest):
        match = _PART.match(rest, position)
        if match is None:
            raise _not_understood(text, rest[position:])
        pairs.append((match[1], _unquoted(match[2])))
        position = match.end()
    return name, pairs


def join_dataset_string(name: str, pairs: Iterable[tuple[str, str]]) -> str:
    """The data set string that `split_dataset_string` splits into these."""
    return ":".join([name, *(f"{key}={_quoted(value)}" for key, value in pairs)])


def absolute_dataset_string(text: str) -> str:
    """The same data set, its paths absolute; a text that is no data set string stays as it is."""
    try:
        name, pairs = split_dataset_string(text)
    except UserError:
        return text
    return join_dataset_string(name, [(key, str(Path(v).absolute()) if key in PATH_KEYS else v) for key, v in pairs])


def check_places(text: str) -> None:
    """Find files and folders of a data set string that are not there, before anything slow is imported.

    Raises:
        UserError: for the first one.
    """
    name, pairs = split_dataset_string(text)
    if name == "ImageNet" and not any(key in PATH_KEYS for key, _ in pairs):  # the default, as of DINOv2
        raise UserError(
            f"data set {text} names no folder (root=...:extra=...). A folder of images is given as --input-dir FOLDER "
            "in training, and as ImageFolder:root=FOLDER in evaluations"
        )
    if not pairs and Path(text).is_dir():
        written = join_dataset_string("ImageFolder", [("root", text)])
        raise UserError(f"data set {text} is a folder; one of images is written {written}")
    for key, value in pairs:
        if key in ("root", "extra", "file") and not Path(value).exists():
            raise UserError(f"{key}={value} of data set {text} does not exist")


def datasets_of_inputs(paths: str | Sequence[str]) -> str | list[str]:
    """The value of train.dataset_path for what --input-dir names: folders of images, HDF5 files, CSV lists.

    All folders are one data set, in which equal names of subfolders are one class, and so are all HDF5 files.
    """
    found: dict[str, list[str]] = {"ImageFolder": [], "HDF5": [], "CSV": []}
    for given in [paths] if isinstance(paths, str) else paths:
        path = Path(given).resolve()
        name = "ImageFolder" if path.is_dir() else INPUT_FILES.get(path.suffix.lower(), "ImageFolder")
        found[name].append(str(path))
    strings = [join_dataset_string("CSV", [("file", path)]) for path in found["CSV"]]
    for name, key in (("HDF5", "file"), ("ImageFolder", "root")):
        if found[name]:
            strings.insert(0, join_dataset_string(name, [(key, path) for path in found[name]]))
    return strings[0] if len(strings) == 1 else strings


def _quoted(value: str) -> str:
    if _PLAIN.fullmatch(value):
        return value
    doubled = value.replace('"', '""')
    return f'"{doubled}"'


def _unquoted(value: str) -> str:
    mark = value[0]
    return value[1:-1].replace(mark * 2, mark) if mark in "\"'" else value


def _not_understood(text: str, rest: str) -> UserError:
    return UserError(
        f"data set string {text!r} is not understood from {rest!r} on: expected key=value, parts separated by "
        '":"; a value that contains ":" goes into quotes, and a quotation mark inside quotes is written twice'
    )
