"""What is in a file or a folder of weights, without running code that may be in it."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dinov2.errors import UserError
from dinov2.utils.checkpoint import MANIFEST, read_tensors

from .file_kind import kind_of
from .inert import STAND_INS

_INDEX = "model.safetensors.index.json"  # of a Hugging Face model in several files
_OF_FOLDERS = ("model.safetensors", "pytorch_model.bin")


def read_content(path: str | Path) -> Mapping[str, Any]:
    """The mapping that a file holds, nested as it is there.

    Args:
        path: of a file that torch.save or safetensors wrote, of a checkpoint folder of this project, or of the folder
            of a Hugging Face model.
    Raises:
        UserError: if there is no such file, it is damaged or no file of weights, or it asks for code to be run.
    """
    path = Path(path)
    if path.is_dir():
        return _read_folder(path)
    if not path.is_file():
        raise UserError(f"weights file {path} does not exist")
    is_safetensors = kind_of(path) == "safetensors" or path.suffix == ".safetensors"
    content = _read_safetensors(path) if is_safetensors else _read_pickle(path)
    if not isinstance(content, Mapping) or not all(isinstance(key, str) for key in content):
        raise UserError(f"weights file {path} holds no mapping of names to tensors")
    return content


def _read_folder(folder: Path) -> Mapping[str, Any]:
    if (folder / MANIFEST).exists():
        return read_tensors(folder)
    if (folder / _INDEX).is_file():
        return _read_parts(folder)
    for name in _OF_FOLDERS:
        if (folder / name).is_file():
            return read_content(folder / name)
    raise UserError(
        f"the folder {folder} has no weights that are known: expected a checkpoint of this project (checkpoints/"
        f"step-..., with {MANIFEST}) or a Hugging Face model (with {', '.join(_OF_FOLDERS)} or {_INDEX})"
    )


def _read_parts(folder: Path) -> dict[str, Tensor]:
    """All tensors of a model whose index says which files they are in; the files are beside the index."""
    try:
        names = set(json.loads((folder / _INDEX).read_text(encoding="utf-8"))["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder / _INDEX} is no index of tensors: {error!r}") from error
    tensors: dict[str, Tensor] = {}
    for name in sorted(names, key=str):
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise UserError(f"{folder / _INDEX} names {name!r}, which is no .safetensors file beside it")
        tensors.update(read_content(folder / name))
    return tensors


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except Exception as error:  # the library's own kinds, and those of the operating system
        raise UserError(f"weights file {path} cannot be read as safetensors: {error}") from error


def _read_pickle(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(STAND_INS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged or malicious file makes the reader raise
        raise UserError(
            f"weights file {path} cannot be read as plain tensors: {_reason(error)} A file that needs code to be run "
            "is never opened; where you trust it, save its tensors alone with the program it is of"
        ) from error


def _reason(error: Exception) -> str:
    """The sentence of torch's explanation that says what was found."""
    found = re.search(r"WeightsUnpickler error:\s*(.+?)(\. |\n|$)", str(error))
    return f"{found[1] if found else (str(error).strip() or repr(error)).splitlines()[0]}."[:400]
