"""Structured arrays in `.npy` files, such as DINOv2 keeps beside ImageNet: mapped, never unpickled."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from dinov2.errors import UserError
from dinov2.utils.atomic import atomic_path


def map_table(path: Path, *, fields: Mapping[str, str], advice: str) -> np.ndarray:
    """A structured array (n,), mapped read-only.

    Args:
        fields: the kinds that the fields of a row must have, "u" for unsigned numbers, "U" for text.
        advice: how the file is made, for messages.
    Raises:
        UserError: if it is missing or something else.
    """
    array = _map(path, advice)
    kinds = {name: array.dtype[name].kind for name in array.dtype.names or ()}
    missing = [name for name, kind in fields.items() if kinds.get(name) != kind]
    if missing or array.ndim != 1:
        raise UserError(
            f"{path} is no table with the columns {', '.join(fields)}: got {array.dtype}, shape {array.shape}. {advice}"
        )
    return array


def load_texts(path: Path, *, advice: str) -> list[str]:
    """An array of texts (n,).

    Raises:
        UserError: if it is missing or something else.
    """
    array = _map(path, advice)
    if array.dtype.kind != "U" or array.ndim != 1:
        raise UserError(f"{path} is no list of texts: got {array.dtype}, shape {array.shape}. {advice}")
    return array.tolist()


def save_array(path: Path, array: np.ndarray) -> None:
    """Write a whole `.npy` file atomically."""
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}") from error


def _map(path: Path, advice: str) -> np.ndarray:
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except FileNotFoundError as error:
        raise UserError(f"{path} does not exist. {advice}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be used: {error}. {advice}") from error
