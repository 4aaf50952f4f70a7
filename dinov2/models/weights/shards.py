"""Joining the files that the ranks of a sharded run of DINOv2 have written, each with its part.

Format: `model_XXXXXXX.rank_R.pth` is {"model", "optimizer", "iteration"}. Under "model" every parameter has its own
name and is the 1-D slice that rank R holds, which may be empty; beside them are `ShardedTensor`s of the same numbers,
which are skipped (see `inert`). Slices one after the other are the parameter, flattened. Its shape is not in the file
and has to come from the model of the run's configuration. The optimiser's part is not joined: its moments are numbered
by parameter groups, and a run of this project goes on from its own checkpoints only.
"""

import re
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from dinov2.errors import UserError

from .inert import is_weight
from .names import without_wrappers
from .reading import read_content


def join_shards(paths: Sequence[Path], shapes: Mapping[str, Sequence[int]]) -> dict[str, Tensor]:
    """Whole tensors from the files of all ranks.

    Args:
        paths: of the files, in any order.
        shapes: of every tensor of the model, by its name.
    Raises:
        UserError: if a rank is missing, a file is none of this format, or sizes do not fit.
    """
    parts = [_slices(path) for path in in_rank_order(paths)]
    missing = sorted(name for name in shapes if not all(name in part for part in parts))
    if missing:
        raise UserError(
            f"{paths[0].name} and its like lack {len(missing)} tensors of the configuration's model, such as "
            f"{missing[0]}: is it the configuration of that run?"
        )
    return {name: _joined(name, [part[name] for part in parts], tuple(shape)) for name, shape in shapes.items()}


def in_rank_order(paths: Sequence[Path]) -> list[Path]:
    """Files sorted by the rank in their names.

    Raises:
        UserError: if they are not the files of ranks 0, 1, 2, ... of one checkpoint.
    """
    found: dict[int, Path] = {}
    stems = set()
    for path in paths:
        match = re.fullmatch(r"(.+)\.rank_(\d+)\.pth", path.name)
        if not match:
            raise UserError(f"{path} is no part of a checkpoint: expected a name such as model_0003749.rank_0.pth")
        stems.add(match[1])
        found[int(match[2])] = path
    if len(stems) > 1 or len(found) < len(paths):
        raise UserError(f"parts of several checkpoints were given: {', '.join(sorted(path.name for path in paths))}")
    if sorted(found) != list(range(len(found))):
        raise UserError(f"parts of ranks {sorted(found)} were given: expected those of all ranks, from 0 on")
    return [found[rank] for rank in sorted(found)]


def _slices(path: Path) -> dict[str, Tensor]:
    model = read_content(path).get("model")
    if not isinstance(model, Mapping):
        raise UserError(f'{path} is no part of a checkpoint of DINOv2: it has no "model"')
    return {without_wrappers(name): value for name, value in model.items() if is_weight(value)}


def _joined(name: str, slices: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """One tensor from the slices of all ranks, or from the first where each has all of it."""
    wanted = prod(shape)
    sizes = [part.numel() for part in slices]
    if sum(sizes) == wanted:
        return torch.cat([part.flatten() for part in slices]).view(shape)
    if all(size == wanted for size in sizes):
        return slices[0].reshape(shape)
    raise UserError(
        f"the parts of {name} have {' + '.join(map(str, sizes))} numbers, but {shape} needs {wanted}: a rank is "
        "missing, or the configuration is of another model"
    )
