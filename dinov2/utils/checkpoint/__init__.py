"""The files of a checkpoint folder: their layout, the proof that they are whole, and reading them without a run.

How a run saves and restores its state with them is in `train.checkpoint`; weights are taken out of them by
`models.weights`.
"""

from .files import FileRecord, Piece, StoredPiece
from .manifest import MANIFEST, DamagedError, Manifest
from .reading import assemble, read_tensors, stored_pieces

__all__ = [
    "MANIFEST",
    "DamagedError",
    "FileRecord",
    "Manifest",
    "Piece",
    "StoredPiece",
    "assemble",
    "read_tensors",
    "stored_pieces",
]
