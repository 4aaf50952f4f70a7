"""Writing networks in DINOv2's format, with the file names of Roth et al. 2024 for the student and for heads."""

import logging
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from dinov2.distributed.outcomes import SharedError, on_main
from dinov2.utils.atomic import atomic_path

from .checkpoint import SaveError
from .ssl_meta_arch import SSLMetaArch

logger = logging.getLogger("dinov2")


def export_teacher(model: SSLMetaArch, folder: Path) -> None:
    """Write {"teacher": state dict of backbone and heads} to folder/teacher_checkpoint.pth.

    Raises:
        SaveError: on all ranks, if that cannot be done.
    """
    weights = _whole_weights(model, "teacher")
    _write(folder, {"teacher": weights})
    logger.info(f"teacher exported to {folder / 'teacher_checkpoint.pth'}")


def export_networks(model: SSLMetaArch, folder: Path) -> None:
    """Write both networks, {network}_checkpoint.pth, and each of their heads alone, {network}_{head}_checkpoint.pth.

    Every file holds one state dict under its name without "_checkpoint.pth".

    Raises:
        SaveError: on all ranks, if that cannot be done.
    """
    for network in ("teacher", "student"):
        weights = _whole_weights(model, network)
        content = {network: weights}
        for head in (name for name in model.student if name != "backbone"):
            prefix = f"{head}."
            named = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            content[f"{network}_{head}"] = named
        _write(folder, content)
    logger.info(f"teacher and student exported to {folder}")


def _whole_weights(model: SSLMetaArch, network: str) -> dict[str, Any]:
    """The state dict of the student or the teacher in main memory; the main process gets it, all ranks take part."""
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    return get_model_state_dict(model.get_submodule(network), options=options)


def _write(folder: Path, content: dict[str, dict[str, Any]]) -> None:
    """Write folder/{name}_checkpoint.pth with {name: state dict} for each."""

    def write() -> None:
        for name, weights in content.items():
            with atomic_path(folder / f"{name}_checkpoint.pth") as temporary:
                torch.save({name: weights}, temporary)

    try:
        on_main(write)
    except (OSError, SharedError) as error:
        raise SaveError(f"the {next(iter(content))} could not be exported to {folder}: {error}") from error
