"""What is known about published weights, and how they are found by name."""

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from dinov2.errors import UserError, unknown_name

logger = logging.getLogger("dinov2")

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and standard deviation of red, green and blue


@dataclass(frozen=True)
class PublishedWeights:
    """Weights that someone has published. What is not known is empty.

    Attributes:
        name: by which they are asked for.
        licence: its name; `terms` says what matters most of it.
        page: where they are described.
        urls: of the file, to be tried in turn; none where it can only be fetched by hand, after agreeing to terms.
        settings: configuration keys that describe the model, by dotted names.
        kind: "backbone", or "linear head" for a classifier on top of one.
        data: what they were trained on.
        image_size: pixels of the square image that their positions are for.
        mpp: micrometres per pixel of the training tiles.
        mean, std: of the colour channels, as images have to be normalised.
        parameters: numbers in the file, four bytes each unless it is of half precision.
        sha256: of the file, where its publisher states it.
    """

    name: str
    licence: str
    page: str
    urls: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    kind: str = "backbone"
    terms: str = ""
    data: str = ""
    image_size: int | None = None
    mpp: str = ""
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    parameters: int | None = None
    sha256: str = ""

    @property
    def by_hand(self) -> bool:
        """Whether a person has to fetch them."""
        return not self.urls

    @property
    def configuration(self) -> dict[str, Any]:
        """The settings under which an evaluation shows images to the model as it was trained."""
        normalisation = {"augmentation.mean": list(self.mean), "augmentation.std": list(self.std)} if self.mean else {}
        return {**self.settings, **normalisation}

    @property
    def notice(self) -> str:
        """What somebody who uses them has to know."""
        terms = f": {self.terms}" if self.terms else ""
        return f"{self.name} is published under {self.licence}{terms}. See {self.page}"


@lru_cache
def published() -> dict[str, PublishedWeights]:
    """All known weights by name, in the order of the list."""
    from .entries import ENTRIES

    return {entry.name: entry for entry in ENTRIES}


def find(name: str) -> PublishedWeights:
    """The weights of a name.

    Raises:
        UserError: if there are none; it names the nearest.
    """
    if name not in published():
        raise unknown_name("published weights", name, published())
    return published()[name]


def check_known(name: str) -> None:
    """Find weights that are neither published, nor at an address, nor there as a file or folder.

    Raises:
        UserError: with the nearest published names where it might be one.
    """
    if name in published() or is_url(name) or path_exists(name):
        return
    if re.fullmatch(r"[\w/]+", name) and not name.startswith("/"):
        raise UserError(
            f"weights {name} does not exist as a file, and {unknown_name('published weights', name, published())}"
        )
    raise UserError(f"weights file {name} does not exist")


def is_url(name: str) -> bool:
    """Whether a name is an address of any kind."""
    return re.match(r"[a-zA-Z][a-zA-Z0-9+.-]+://", name) is not None


def path_exists(path: str | Path) -> bool:
    """Whether there is such a file or folder; none has a name that the disk cannot hold."""
    try:
        return Path(path).exists()
    except (OSError, ValueError):
        return False


@lru_cache
def show_notice(name: str) -> None:
    """Log the licence of weights, once in a process."""
    logger.warning(find(name).notice)
