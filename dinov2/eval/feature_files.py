"""Features in a file, to evaluate again without running the model: .npz or .safetensors.

A file says what its features were computed from, and carries the SHA-256 of every array. It is used only if both
agree; features of other weights would give scores that look as good as any.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinov2.distributed import broadcast_object, is_main_process
from dinov2.distributed.outcomes import on_main
from dinov2.errors import UserError
from dinov2.utils.atomic import atomic_path

SUFFIXES = (".npz", ".safetensors")
_META = "meta"
_DIGEST_LETTERS = 64
# What messages call what features were computed from, where "another {key}" would not be right.
_OTHERS = {"weights": "other weights", "tokens": "other tokens", "images": "other images"}


def check_suffix(path: Path) -> None:
    """Refuse a name that does not say how features are stored.

    Raises:
        UserError: if it ends with anything else than .npz or .safetensors.
    """
    if path.suffix not in SUFFIXES:
        raise UserError(f"--features {path}: expected a name that ends with {' or '.join(SUFFIXES)}")


def save_features(path: Path, features: Mapping[str, Tensor], origin: Mapping[str, Any]) -> None:
    """Write the features (n, D) of some sets by name, and what they were computed from; all ranks take part."""
    check_suffix(path)

    def save() -> None:
        arrays = {name: values.cpu().contiguous().numpy() for name, values in features.items()}
        meta = json.dumps({"origin": origin, "sha256": {name: _sha256(array) for name, array in arrays.items()}})
        with atomic_path(path) as temporary:
            if path.suffix == ".npz":
                with temporary.open("wb") as file:
                    np.savez(file, **arrays, **{_META: np.array(meta)})  # type: ignore[arg-type]
            else:
                from safetensors.numpy import save_file

                save_file(arrays, str(temporary), metadata={_META: meta})

    on_main(save)


def load_features(path: Path, origin: Mapping[str, Any]) -> dict[str, Tensor]:
    """The features (n, D) of every set, in main memory, or mapped from a .safetensors file; all ranks take part.

    Args:
        origin: what they have to be computed from; a value of None may be anything.
    Raises:
        UserError: if the file is damaged, or its features were computed from something else.
    """
    problem = broadcast_object(_problem(path, origin) if is_main_process() else None)
    if problem:
        raise UserError(f"--features {path} {problem}")
    return _read(path)[0]


def origin_of(path: Path) -> dict[str, Any]:
    """What the features of a file were computed from."""
    return _read(path)[1]["origin"]


def _problem(path: Path, origin: Mapping[str, Any]) -> str | None:
    """Why a file cannot be used."""
    try:
        arrays, meta = _read(path)
    except Exception as error:
        return f"cannot be read: {error}. Remove it to have features computed again"
    for key, expected in origin.items():
        found = meta["origin"].get(key)
        if expected is not None and found != expected:
            return (
                f"has the features of {_OTHERS.get(key, f'another {key}')}{_details(expected, found)}. Remove it to "
                "have them computed again, or name another file"
            )
    for name, values in arrays.items():
        if _sha256(values.numpy()) != meta["sha256"].get(name):
            return f"is damaged: {name!r} has another SHA-256 than when it was written. Remove it"
    return None


def _details(expected: Any, found: Any) -> str:
    """What differs, in brackets; a digest says nothing to a person, so only what it is of."""
    if found is None:
        return " (it has none of this one)"
    pairs = {"": (expected, found)}
    if isinstance(expected, Mapping):
        pairs = {name: (one, found.get(name)) for name, one in expected.items()}
    shown = [_difference(name, *pair) for name, pair in pairs.items() if pair[0] != pair[1]]
    listed = "; ".join(part for part in shown if part)
    return f" ({listed})" if listed else ""


def _difference(name: str, expected: Any, found: Any) -> str:
    if any(isinstance(value, str) and len(value) == _DIGEST_LETTERS for value in (expected, found)):
        return name and f"other {name}"
    return f"{name} {found}, expected {expected}".strip()


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Features by name, and what is said about them."""
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: torch.from_numpy(file[name]) for name in file.files if name != _META}
            return arrays, json.loads(str(file[_META]))
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (it is no mapping)
        return arrays, json.loads(file.metadata()[_META])


def _sha256(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()
