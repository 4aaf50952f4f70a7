"""What is kept of a step that is not taken, so that its cause can be found: results/nonfinite_{iteration}.json."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from json import dumps
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from dinov2.distributed import all_gather_object, get_global_rank, is_main_process
from dinov2.utils.atomic import write_text

from .outputs import StepOutput
from .schedules import ScheduleValues
from .ssl_meta_arch import NUM_GLOBAL_CROPS

logger = logging.getLogger("dinov2")

SHOWN_PARAMETERS = 10  # the first and the last of those whose gradient is not finite; it spreads from the last ones


@dataclass(frozen=True)
class Attempt:
    """A step up to where it is taken or not."""

    iteration: int
    values: ScheduleValues
    means: Mapping[str, float]  # over ranks: losses, gradient norms, loss scale
    student: nn.Module
    grad_norms: Mapping[str, Tensor]  # of this rank
    outputs: Sequence[StepOutput]  # of this rank's micro-batches
    batches: Sequence[Mapping[str, Any]]


def write_evidence(
    folder: Path, attempt: Attempt, *, name_tile: Callable[[int], str], **remarks: str | float
) -> Path | None:
    """Write what all ranks know of an attempt; all of them call it.

    Args:
        name_tile: from the index of a tile in the data set to its name.
        remarks: further entries.
    Returns:
        The file; None, after an error in the log, if it cannot be written.
    """
    ranks = all_gather_object(_of_this_rank(attempt, name_tile))
    path = folder / f"nonfinite_{attempt.iteration:07d}.json"
    if not is_main_process():
        return path
    content = {
        "iteration": attempt.iteration,
        **remarks,
        "schedules": attempt.values._asdict(),
        "means": dict(attempt.means),
        "ranks": ranks,
    }
    try:
        write_text(path, dumps(_plain(content), indent=1, allow_nan=False) + "\n")
    except OSError as error:
        logger.error(f"{path} cannot be written ({error}); the log has the losses, but tiles and parameters are lost")
        return None
    return path


def _of_this_rank(attempt: Attempt, name_tile: Callable[[int], str]) -> dict[str, Any]:
    """Losses of every micro-batch, parameters with a bad gradient, and tiles.

    Tiles are those of micro-batches whose loss is not finite; of all micro-batches where every loss of every rank
    is finite, and only a gradient is not.
    """
    losses = [{name: float(loss) for name, loss in output.figures().items()} for output in attempt.outputs]
    only_gradients = all(isfinite(value) for name, value in attempt.means.items() if "loss" in name)
    bad = nonfinite_gradients(attempt.student)
    return {
        "rank": get_global_rank(),
        "grad_norms": {name: float(norm) for name, norm in attempt.grad_norms.items()},
        "parameters_with_nonfinite_gradient": len(bad),
        "first_of_them": bad[:SHOWN_PARAMETERS],
        "last_of_them": bad[-SHOWN_PARAMETERS:],
        "batches": [
            {
                "losses": figures,
                "tiles": describe_tiles(batch, name_tile)
                if only_gradients or not all(map(isfinite, figures.values()))
                else [],
            }
            for figures, batch in zip(losses, attempt.batches, strict=True)
        ],
    }


def nonfinite_gradients(module: nn.Module) -> list[str]:
    """Names of the parameters whose gradient, or this rank's part of it, is not finite."""
    names = []
    for name, parameter in module.named_parameters():
        gradient = parameter.grad
        local = gradient.to_local() if isinstance(gradient, DTensor) else gradient
        if local is not None and not bool(local.isfinite().all()):
            names.append(name)
    return names


def describe_tiles(batch: Mapping[str, Any], name_tile: Callable[[int], str]) -> list[dict[str, Any]]:
    """For every tile of a batch its index and name, if the batch knows them, and the values of its crops.

    Returns:
        Smallest, largest and mean of the finite values ("inf", "-inf" and "nan" without any), and the number of
        the others.
    """
    num_images = len(batch["collated_global_crops"]) // NUM_GLOBAL_CROPS
    crops = [batch[name] for name in ("collated_global_crops", "collated_local_crops") if len(batch[name])]
    by_image = [group.float().unflatten(0, (-1, num_images)).transpose(0, 1).flatten(1) for group in crops]
    values = torch.cat(by_image, dim=1)  # (B, numbers in all crops)
    finite = values.isfinite()
    columns = {
        "min": values.where(finite, torch.inf).amin(dim=1),
        "max": values.where(finite, -torch.inf).amax(dim=1),
        "mean": values.where(finite, torch.nan).nanmean(dim=1),
        "nonfinite": (~finite).sum(dim=1),
    }
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    described = [dict(zip(columns, row, strict=True)) for row in rows]
    if "tiles" not in batch:
        return described
    tiles = batch["tiles"].tolist()
    return [{"tile": tile, "name": name_tile(tile), **row} for tile, row in zip(tiles, described, strict=True)]


def _plain(value: Any) -> Any:
    """The same for strict JSON, which knows no NaN and no infinity: these become words."""
    if isinstance(value, Mapping):
        return {name: _plain(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, float) and not isfinite(value) else value
