"""What a kind of export is, and which kinds there are."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from dinov2.errors import UserError
from dinov2.models.vision_transformer import DinoVisionTransformer

from .request import RGB
from .tokens import Tokens


@dataclass(frozen=True)
class Notes:
    """What the files of an export say besides weights.

    Attributes:
        image_size: pixels along a side of an image.
        num_heads: of attention, which weights do not tell.
        mean, std: of the colour channels, as images have to be normalised.
        facts: for the metadata of files, by name.
    """

    image_size: int
    num_heads: int
    mean: RGB
    std: RGB
    facts: Mapping[str, str] = field(default_factory=dict)

    @property
    def metadata(self) -> dict[str, str]:
        """All of it as text."""
        own = {
            "image_size": self.image_size,
            "num_heads": self.num_heads,
            "mean": list(self.mean),
            "std": list(self.std),
        }
        return {**self.facts, **{name: json.dumps(value) for name, value in own.items()}}


class ExportFormat(ABC):
    """A kind of export.

    Attributes:
        loaded_by: the library that loads it.
        requires: packages without which it cannot be made and checked; their modules have the same names.
        card_library: what Hugging Face calls the library.
        cautions: what goes wrong with it without a word, as a list in Markdown with {size} of an image and {patch}.
    """

    loaded_by: ClassVar[str]
    requires: ClassVar[tuple[str, ...]] = ()
    card_library: ClassVar[str] = ""
    cautions: ClassVar[str]

    @abstractmethod
    def write(self, model: DinoVisionTransformer, folder: Path, notes: Notes) -> None:
        """Write the files of a model into an empty folder.

        Raises:
            UserError: if the library has no such model.
        """

    @abstractmethod
    def load(self, folder: Path) -> Callable[[Tensor], Tokens]:
        """What the library makes of the files: images (B, 3, S, S) -> tokens."""

    @abstractmethod
    def usage(self, notes: Notes) -> str:
        """Python code that computes `cls` and `patches` of tile.png, run in the folder of the export."""

    @abstractmethod
    def other_sizes(self, model: DinoVisionTransformer) -> str:
        """What becomes of images of another size."""

    def require(self) -> None:
        """Check that the library is there.

        Raises:
            UserError: says how to install it.
        """
        missing = [package for package in self.requires if find_spec(package) is None]
        if missing:
            raise UserError(
                f"an export for {self.loaded_by} is checked with it, and {', '.join(missing)} cannot be found: "
                f"pip install {' '.join(missing)}, or in the repository pip install -e '.[export]'"
            )

    def versions(self) -> dict[str, str]:
        """Versions of the packages that made and checked it."""
        return {package: version(package) for package in ("torch", *self.requires)}


def same_rule(model: DinoVisionTransformer, *, antialias: bool) -> bool:
    """Whether a library that resizes positions by size alone, with or without a low-pass filter, does as the model."""
    return model.interpolate_offset == 0.0 and model.interpolate_antialias == antialias


def resizing_note(library: str, how: str, *, alike: bool) -> str:
    """A sentence on what a library does with positions at other sizes."""
    compared = (
        "as the model of this project does, so that features agree there, too"
        if alike
        else "which is not what the model of this project does: features differ a little there. To have the same, "
        "export for that size with `--image-size`"
    )
    return f"{library} resizes positions {how}, {compared}."


def one_size_note(what: str) -> str:
    """A sentence on what is made for one size."""
    return f"The {what} is for images of this size alone, in batches of any number; `--image-size` exports for another."


def json_text(content: Mapping[str, Any]) -> str:
    """The text of a JSON file for people and programs."""
    return json.dumps(content, indent=2) + "\n"
