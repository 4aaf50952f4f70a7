"""Checkpoints that are whole or not there.

A checkpoint is a folder `checkpoints/step-0000123`:

    rank-00000.safetensors, ...   tensors; each rank writes what it holds, and what all hold is shared out
    state.json                    what is no tensor: counters, metrics, settings
    manifest.json                 size and SHA-256 of each, written last

It is written aside, flushed, and renamed into place. Nothing is read from a folder before its manifest is verified,
nothing in it can run code, and any number of processes can read it.
"""

from dinov2.utils.checkpoint import DamagedError

from .checkpointer import Checkpointer
from .loading import SavedCheckpoint, TensorKind
from .saving import SaveError
from .snapshot import Snapshot, json_digest, state_digest

__all__ = [
    "Checkpointer",
    "DamagedError",
    "SaveError",
    "SavedCheckpoint",
    "Snapshot",
    "TensorKind",
    "json_digest",
    "state_digest",
]
