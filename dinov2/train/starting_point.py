"""Both networks, with their heads, of an export to start from: `head.head_path`.

The files are those of an export, `{teacher|student}_checkpoint.pth` and
`{teacher|student}_{dino_head|ibot_head}_checkpoint.pth`, also with something in front of their names, as in the
release of Roth et al. 2024 (`dinov2_vits_NCT_10k_training_9999_teacher_checkpoint.pth`).
"""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from dinov2.errors import UserError
from dinov2.models.weights import LoadOptions, load_pretrained_backbone, read_networks

from .schedules import Timeline
from .ssl_meta_arch import SSLMetaArch

logger = logging.getLogger("dinov2")

_FILE = re.compile(
    r"(?P<before>.+_)?(?P<network>teacher|student)(?:_(?P<head>dino_head|ibot_head))?_checkpoint\.(?:pth|safetensors)"
)
_STEP = re.compile(r"training_(\d+)")


class _Part(NamedTuple):
    """A network and what a file has of it; no head: the backbone, and often its heads too."""

    network: str
    head: str | None = None


class StartingPoint:
    """An export to start from."""

    def __init__(self, head: Any) -> None:
        """Look for the files that the `head` section of a configuration names.

        Raises:
            UserError: if there are none, or several of the same kind.
        """
        self.path = Path(head.head_path)
        self.wanted: Sequence[str] = list(head.load)
        self.files = _find(self.path)
        named = _STEP.findall(str(self.path)) or _STEP.findall(next(iter(self.files.values())).name)
        # Exports count iterations from 0.
        given = head.start_iteration
        self.iteration: int = given if given is not None else int(named[-1]) + 1 if named else 0

    @classmethod
    def from_config(cls, cfg: Any, timeline: Timeline) -> "StartingPoint | None":
        """The export that a configuration names, if it does.

        Raises:
            UserError: if its files are not there, or the training would have ended before it begins.
        """
        if not cfg.head.head_path:
            return None
        point = cls(cfg.head)
        if point.iteration >= timeline.total:
            raise UserError(
                f"head.head_path is of {point.iteration:,} iterations and the training ends after {timeline.total:,}: "
                "train longer (optim.epochs), or begin the schedules anew with head.start_iteration=0"
            )
        return point

    def load(self, model: SSLMetaArch) -> None:
        """Load both networks, which must be whole on every rank.

        Raises:
            UserError: if something is missing or does not fit.
        """
        model.teacher.load_state_dict(model.student.state_dict())  # where nothing is loaded, they are equal
        networks: Mapping[str, Any] = {"student": model.student, "teacher": model.teacher}
        for name, network in networks.items():
            parts = [part for part in self.wanted if part in network]
            for part in parts:
                self._load(name, part, network[part])
            owner = " of the teacher, which the export has alone," if self._is_teacher_alone else ""
            logger.info(f"{name}: {', '.join(parts)}{owner} from {self.path}")

    @property
    def _is_teacher_alone(self) -> bool:
        """Whether there is nothing of a student, as in DINOv2's own exports: both networks begin as the teacher."""
        return all(part.network == "teacher" for part in self.files)

    def _load(self, network: str, part: str, module: nn.Module) -> None:
        if part == "backbone":
            load_pretrained_backbone(module, self._file(_Part(network)), options=LoadOptions(network=network))
            return
        alone = _Part("teacher" if self._is_teacher_alone else network, part)
        file = self._file(alone if alone in self.files else _Part(network))
        heads = read_networks(file).choose(network)[1].heads
        if part not in heads:
            raise UserError(f"{file} has no {part}; head.load says what is taken from head.head_path")
        try:
            module.load_state_dict(heads[part])
        except RuntimeError as error:
            raise UserError(f"the {part} in {file} does not fit the configuration: {error}") from error

    def _file(self, part: _Part) -> Path:
        if self._is_teacher_alone:
            part = part._replace(network="teacher")
        if part not in self.files:
            names = ", ".join(sorted(path.name for path in self.files.values()))
            raise UserError(
                f"head.head_path={self.path} has no {part.network}_checkpoint.pth; it has {names}. head.load says what "
                "is taken from it"
            )
        return self.files[part]


def _find(path: Path) -> dict[_Part, Path]:
    """The files of an export in a folder, or those whose paths begin with `path`."""
    folder, prefix = (path, "") if path.is_dir() else (path.parent, path.name)
    files: dict[_Part, Path] = {}
    for file, part in _named(folder):
        if not file.name.startswith(prefix):
            continue
        if part in files:
            raise UserError(
                f"head.head_path={path} has several exports, such as {files[part].name} and {file.name}: give the part "
                "of the path that they do not share as well"
            )
        files[part] = file
    if not files:
        raise UserError(
            f"head.head_path={path}: expected a folder with teacher_checkpoint.pth and student_checkpoint.pth, such as "
            "eval/training_9999 of a run"
        )
    return files


def _named(folder: Path) -> Iterator[tuple[Path, _Part]]:
    for file in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _FILE.fullmatch(file.name)
        if match:
            yield file, _Part(match["network"], match["head"])
