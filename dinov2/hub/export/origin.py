"""Where weights come from: a file, the training it lies in, or the list of published weights."""

import logging
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dinov2.errors import UserError
from dinov2.train.best import NOTE
from dinov2.train.checkpoint.retention import checkpoint_path
from dinov2.visualize.report.run_folder import METRICS, TIMELINE, Run, read_object, read_runs

from ..registry import PublishedWeights, path_exists, published
from ..resolve import resolve_weights, weights_digest
from .request import Request

logger = logging.getLogger("dinov2")


@dataclass(frozen=True)
class Origin:
    """Weights and what is known to belong to them.

    Attributes:
        path: of the file or folder.
        run: the training that wrote it, if its folder is known.
        entry: what is known of published weights.
    """

    path: Path
    run: Run | None = None
    entry: PublishedWeights | None = None

    @cached_property
    def digest(self) -> str:
        """What evaluations call these weights."""
        return weights_digest(self.path)

    @property
    def settings(self) -> dict[str, Any]:
        """Configuration by dotted name, as far as it is known."""
        if self.run is not None:
            return self.run.settings.values
        return dict(self.entry.settings) if self.entry is not None else {}

    @property
    def iterations(self) -> int | None:
        """Steps that the weights have been trained for."""
        return steps_of(self.path)


def find_origin(request: Request) -> Origin:
    """The weights that are asked for.

    Raises:
        UserError: if there are none, or the folder named as a run is none or another one.
    """
    given = Path(request.weights)
    if _is_run(given):
        path = newest_weights(given, request.network)
    else:
        path = resolve_weights(request.weights, offline=request.offline or None)
    around = next((folder for folder in path.resolve().parents[:3] if _is_run(folder)), None)
    if request.run is not None and around is not None and request.run.resolve() != around:
        raise UserError(f"{path} lies in the folder of another run, {around}; leave out --run {request.run}")
    folder = request.run or around
    return Origin(path, _read_run(folder) if folder is not None else None, published().get(request.weights))


def newest_weights(run: Path, network: str) -> Path:
    """The newest export of a network, or the newest checkpoint where that is newer.

    Raises:
        UserError: if the run has neither.
    """
    exports = run.glob(f"eval/training_*/{network}_checkpoint.pth")
    checkpoints = [checkpoint_path(run / "checkpoints", step) for step in _read_run(run).checkpoints]
    found = {step: path for path in (*checkpoints, *exports) if (step := steps_of(path)) is not None}
    if not found:
        raise UserError(f"{run} has no {network}: neither checkpoints/step-... nor eval/training_.../ was written yet")
    newest = found[max(found)]
    logger.info(f"the newest weights of {run} are {newest.relative_to(run)}; others are exported by naming their file")
    return newest


def steps_of(path: Path) -> int | None:
    """Steps taken before weights were written, as their names tell; None where they do not."""
    if found := re.fullmatch(r"step-(\d+)", path.name):
        return int(found[1])
    named = re.search(r"training_(\d+)_(teacher|student)_checkpoint", path.name)  # of Roth et al.
    if found := named or re.fullmatch(r"training_(\d+)", path.parent.name):
        return int(found[1]) + 1  # DINOv2 names exports by the iteration, counted from 0
    noted = read_object(path.parent / NOTE).get("iteration")
    return noted if isinstance(noted, int) else None


def _is_run(folder: Path) -> bool:
    return any(path_exists(folder / name) for name in (METRICS, TIMELINE))


def _read_run(folder: Path) -> Run:
    return read_runs([folder])[0]
