"""What is known about a model: stated by somebody, published, or written by its training. The rest is left open."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dinov2.errors import UserError

from ..registry import published
from .origin import Origin
from .request import RGB, Request

# A path of at least one folder, after a sign that it begins here; "//" is that of an address.
_PATH = re.compile(r"(?<![^=\s\"'\[,:])(~|\.{1,2})?/(?!/)[^:\"',\]]*")


@dataclass(frozen=True)
class Facts:
    """About a model; empty or None where nothing is known.

    Attributes:
        network: "teacher", "student", or "".
        mean, std: as images have to be normalised.
        notice: what to know besides the licence's name.
        iterations, planned: steps trained, and those of the whole training.
        start: what its training began with.
        settings: the configuration of the training, without folders of the machine.
    """

    name: str
    network: str
    mean: RGB
    std: RGB
    licence: str = ""
    notice: str = ""
    mpp: str = ""
    data: str = ""
    iterations: int | None = None
    planned: int | None = None
    start: str = ""
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def metadata(self) -> dict[str, str]:
        """What is known, for the metadata of files."""
        iterations = "" if self.iterations is None else str(self.iterations)
        known = {"name": self.name, "licence": self.licence, "mpp": self.mpp, "iterations": iterations}
        return {name: value for name, value in known.items() if value}


def gather_facts(request: Request, origin: Origin, network: str) -> Facts:
    """What somebody states, or else what is published, or else what the training has written.

    Args:
        network: "teacher", "student", or "" where the weights do not say.
    Raises:
        UserError: if nobody says how images have to be normalised.
    """
    stated, entry, run = request.stated, origin.entry, origin.run
    mean, std = _normalisation(request, origin)
    settings = origin.settings
    data = settings.get("train.dataset_path") if run is not None else ""
    return Facts(
        name=stated.name or request.output.resolve().name,
        network=network,
        mean=mean,
        std=std,
        licence=stated.licence or (entry.licence if entry else ""),
        notice=entry.notice if entry else "",
        mpp=stated.mpp or (entry.mpp if entry else ""),
        data=stated.data or (entry.data if entry else "") or _one_line(data),
        iterations=origin.iterations,
        planned=run.total if run is not None else None,
        start=_start(settings.get("student.pretrained_weights") if run is not None else ""),
        settings=tuple((name, shortened(value)) for name, value in settings.items()) if run is not None else (),
    )


def shortened(value: Any) -> Any:
    """A setting whose paths keep their last name only: a model card is read elsewhere and by others."""
    if isinstance(value, str):
        return _PATH.sub(lambda found: Path(found[0]).name, value)
    return [shortened(inner) for inner in value] if isinstance(value, list) else value


def _normalisation(request: Request, origin: Origin) -> tuple[RGB, RGB]:
    stated, entry, settings = request.stated, origin.entry, origin.settings
    if stated.mean or stated.std:
        candidates: list[tuple[Any, Any]] = [(stated.mean, stated.std)]
    else:
        candidates = [(settings.get("augmentation.mean"), settings.get("augmentation.std"))]
        candidates += [(entry.mean, entry.std)] if entry is not None else []
    for pair in candidates:
        mean, std = map(_rgb, pair)
        if mean is not None and std is not None and min(std) > 0:
            return mean, std
    raise UserError(
        f"how images have to be normalised for {origin.path} is not known, and every format says it. Name the folder "
        "of its training with --run, or give both --mean R G B and --std R G B, which is above 0; those of DINOv2's "
        "own models are ImageNet's, --mean 0.485 0.456 0.406 --std 0.229 0.224 0.225"
    )


def _rgb(value: Any) -> RGB | None:
    """Three numbers, or None for anything else."""
    if not isinstance(value, Sequence) or len(value) != 3 or not all(isinstance(one, (int, float)) for one in value):
        return None
    red, green, blue = map(float, value)
    return red, green, blue


def _one_line(value: Any) -> str:
    return "; ".join(map(str, shortened(value))) if isinstance(value, list) else str(shortened(value or ""))


def _start(weights: Any) -> str:
    """What training began with, and its terms where they are known."""
    if not isinstance(weights, str) or not weights:
        return ""
    return published()[weights].notice if weights in published() else str(shortened(weights))
