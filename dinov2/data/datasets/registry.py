"""The data sets that a data set string can name, and the keys that each of them has.

    Pathology:root=...:extra=...[:subset=...]
    PathologyFoundation:root=...:extra=...[:subset=...]
    KNN:root=...:extra=...:split=query|test[:subset=...]
    ImageFolder:root=...[:root=...][:recursive=true|false][:extensions=.png,.jpg][:held_out=0.1][:held_out_list=...]
        [:split=train|held_out][:check=true|false]
    CSV:file=...[:root=...][:column=...][:label=...][:group=...][:site=...]
    HDF5:file=...[:file=...][:key=...][:label=...]
    ImageNet:split=TRAIN|VAL|TEST:root=...:extra=...[:check_length=true|false]
    ImageNet22k:root=...:extra=...

What each key means stands at the class. How values are quoted stands in `dinov2.utils.dataset_strings`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from dinov2.errors import Mistakes, UserError, unknown_name
from dinov2.utils.dataset_strings import check_places, split_dataset_string

from .base import TileDataset
from .csv_list import CSVListDataset
from .hdf5 import HDF5Dataset
from .image_folder import ImageFolderDataset
from .image_net import ImageNet
from .image_net_22k import ImageNet22k
from .knn import KNNDataset
from .pathology import PathologyDataset, PathologyFoundationDataset


@dataclass(frozen=True)
class ValueKind:
    """How the text of a value is read.

    Attributes:
        shown: stands for the value in a syntax line.
        expected: what a wrong value is answered with.
        read: text -> value, None for a wrong one.
    """

    shown: str
    expected: str
    read: Callable[[str], Any]


def choice(*names: str) -> ValueKind:
    """One of these words."""
    return ValueKind("|".join(names), f"expected {' or '.join(names)}", {name: name for name in names}.get)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


TEXT = ValueKind("...", "expected a text", str)
NUMBER = ValueKind("0.1", "expected a number", _number)
SWITCH = ValueKind("true|false", "expected true or false", {"true": True, "false": False}.get)
WORDS = ValueKind(".png,.jpg", "expected words with commas between them", lambda text: text.split(","))


@dataclass(frozen=True)
class DatasetSpec:
    """A data set class and the keys of its string.

    Attributes:
        factory: called with the keys that are given, and with the options of `TileDataset`.
        lists: keys that may be given several times, which makes their value a list.
        kinds: of values that are no plain texts.
    """

    factory: Callable[..., TileDataset]
    required: tuple[str, ...]
    optional: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    kinds: Mapping[str, ValueKind] = field(default_factory=dict)

    def syntax(self, name: str) -> str:
        """How the string of this data set is written, in one line."""
        shown = {key: f":{key}={self.kinds.get(key, TEXT).shown}" for key in self.required + self.optional}
        required = "".join(shown[key] + (f"[{shown[key]}]" if key in self.lists else "") for key in self.required)
        return f"{name}{required}{''.join(f'[{shown[key]}]' for key in self.optional)}"

    def read(self, name: str, pairs: list[tuple[str, str]]) -> dict[str, Any]:
        """The settings that (key, value) pairs make.

        Raises:
            UserError: for an unknown, missing or repeated key, or a value that is not understood.
        """
        settings: dict[str, Any] = {}
        for key, text in pairs:
            value = self._read_value(name, key, text)
            if key in self.lists:
                settings.setdefault(key, []).append(value)
            elif key in settings:
                raise UserError(f"key {key} of data set {name} takes one value and is given several times")
            else:
                settings[key] = value
        missing = [key for key in self.required if key not in settings]
        if missing:
            raise UserError(
                f"data set {name} lacks {' and '.join(f'{key}=...' for key in missing)}; it is written "
                f"{self.syntax(name)}. A folder of images needs nothing but --input-dir FOLDER"
            )
        return settings

    def _read_value(self, name: str, key: str, text: str) -> Any:
        if key not in self.required + self.optional:
            unknown = unknown_name(f"key of data set {name}", key, self.required + self.optional)
            raise UserError(f"{unknown}\n{name} is written {self.syntax(name)}")
        kind = self.kinds.get(key, TEXT)
        value = kind.read(text) if text else None
        if value is None:
            raise UserError(f"{key}={text} of data set {name}: {kind.expected}")
        return value


DATASETS: dict[str, DatasetSpec] = {
    "Pathology": DatasetSpec(PathologyDataset, ("root", "extra"), ("subset",)),
    "PathologyFoundation": DatasetSpec(PathologyFoundationDataset, ("root", "extra"), ("subset",)),
    "KNN": DatasetSpec(KNNDataset, ("root", "extra", "split"), ("subset",), kinds={"split": choice("query", "test")}),
    "ImageFolder": DatasetSpec(
        ImageFolderDataset,
        ("root",),
        ("recursive", "extensions", "held_out", "held_out_list", "split", "check"),
        lists=("root",),
        kinds={
            "recursive": SWITCH,
            "extensions": WORDS,
            "held_out": NUMBER,
            "split": choice("train", "held_out"),
            "check": SWITCH,
        },
    ),
    "CSV": DatasetSpec(CSVListDataset, ("file",), ("root", "column", "label", "group", "site")),
    "HDF5": DatasetSpec(HDF5Dataset, ("file",), ("key", "label"), lists=("file",)),
    "ImageNet": DatasetSpec(
        ImageNet,
        ("split", "root", "extra"),
        ("check_length",),
        kinds={"split": choice("TRAIN", "VAL", "TEST"), "check_length": SWITCH},
    ),
    "ImageNet22k": DatasetSpec(ImageNet22k, ("root", "extra")),
}


def parse_dataset_string(text: str) -> tuple[DatasetSpec, dict[str, Any]]:
    """Look up the class that a data set string names, and read its settings.

    Raises:
        UserError: if the string is not right; the message says how it is written.
    """
    name, pairs = split_dataset_string(text)
    if name not in DATASETS:
        known = "\n  ".join(spec.syntax(known) for known, spec in DATASETS.items())
        raise UserError(f"{unknown_name('data set', name, DATASETS)}\nData sets are written\n  {known}")
    spec = DATASETS[name]
    return spec, spec.read(name, pairs)


def check_dataset_strings(texts: Iterable[str]) -> None:
    """Check that strings are right and name files and folders that there are; nothing is opened.

    Raises:
        UserError: with all that is wrong.
    """
    mistakes = Mistakes()
    for text in texts:
        with mistakes.collecting():
            parse_dataset_string(text)
            check_places(text)
    mistakes.refuse()
