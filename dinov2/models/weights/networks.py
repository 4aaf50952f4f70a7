"""Which networks a file of weights has, recognised by its keys and shapes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.errors import UserError

from .huggingface_names import from_huggingface, is_huggingface
from .inert import SkippedTensor, is_weight
from .names import HEADS, NETWORKS, place_of
from .reading import read_content
from .timm_names import from_timm

_CONTAINERS = ("model", "state_dict")  # keys under which programs keep the state dict of a whole model


@dataclass
class SavedNetwork:
    """A backbone and its heads.

    Attributes:
        backbone: tensors under DINOv2's names, blocks not chunked.
        heads: tensors of `dino_head` and `ibot_head` under DINOHead's names, where there are such heads.
        dialect: whose names the backbone had.
    """

    backbone: dict[str, Tensor] = field(default_factory=dict)
    heads: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    dialect: str = "DINOv2"


@dataclass(frozen=True)
class WeightsFile:
    """The networks in a file.

    Attributes:
        networks: by "teacher", "student", or "" where the file does not say which it is.
        left_out: names of tensors of no network: classifiers, centres of losses, moments of an optimiser.
    """

    path: Path
    networks: Mapping[str, SavedNetwork]
    left_out: tuple[str, ...]

    def choose(self, wanted: str = "teacher") -> tuple[str, SavedNetwork]:
        """The named network and its name, or the only one that there is."""
        if wanted in self.networks:
            return wanted, self.networks[wanted]
        name = next(iter(self.networks))
        return name, self.networks[name]


def read_networks(path: str | Path) -> WeightsFile:
    """Recognise what is in a file or folder; see `docs/weights.md` for all that is known.

    Raises:
        UserError: if it cannot be read, or holds no weights of a vision transformer.
    """
    content = read_content(path)
    _check_whole(path, content)
    networks: dict[str, SavedNetwork] = {}
    left_out: list[str] = []
    for owner, name, tensor in _tensors(content):
        place = place_of(name)
        network = networks.setdefault(owner or place.network, SavedNetwork())
        if not place.part:
            left_out.append(name)
            continue
        part = network.backbone if place.part == "backbone" else network.heads.setdefault(place.part, {})
        if place.name in part:
            raise UserError(f"{path}: two tensors are both {place.name} of the same network; one of them is {name}")
        part[place.name] = tensor
    found = {name: _translated(network) for name, network in networks.items() if network.backbone or network.heads}
    if not found:
        keys = ", ".join(sorted(map(str, content))[:8]) or "nothing"
        raise UserError(
            f"{path} holds no weights that are known. At its top are: {keys}. Expected a state dict, or one under "
            f"{', '.join((*NETWORKS, *_CONTAINERS))}"
        )
    return WeightsFile(Path(path), found, tuple(left_out))


def _check_whole(path: str | Path, content: Mapping[str, Any]) -> None:
    """Refuse what one rank of a sharded run has written."""
    model = content.get("model")
    if isinstance(model, Mapping) and any(isinstance(value, SkippedTensor) for value in model.values()):
        raise UserError(
            f"{path} has the part of one rank of a sharded run; join the parts of all ranks with "
            "scripts/convert_dinov2_shards.py"
        )


def _tensors(content: Mapping[str, Any], owner: str = "", prefix: str = "") -> Iterator[tuple[str, str, Tensor]]:
    """(network that a key around it named or "", name, tensor) of all weights; other values are passed over."""
    for key, value in content.items():
        if is_weight(value):
            yield owner, f"{prefix}{key}", value
        if not isinstance(value, Mapping):
            continue
        if key in NETWORKS:
            yield from _tensors(value, key, prefix)
        elif key in _CONTAINERS:
            yield from _tensors(value, owner, prefix)
        else:
            network, _, head = str(key).partition("_")
            if network in NETWORKS and head in HEADS:  # a head alone: {"teacher_dino_head": ...}
                yield from _tensors(value, network, f"{head}.")


def _translated(network: SavedNetwork) -> SavedNetwork:
    """A network whose backbone has DINOv2's names."""
    backbone = network.backbone
    if is_huggingface(backbone):
        return SavedNetwork(from_huggingface(backbone), network.heads, "transformers")
    dialect = "DINOv2" if "mask_token" in backbone else "timm or DINO"
    return SavedNetwork(from_timm(backbone), network.heads, dialect)
