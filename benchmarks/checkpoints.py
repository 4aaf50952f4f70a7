"""Saving and loading a state of many tensors: our checkpoints, and torch.save with fsync.

python benchmarks/checkpoints.py [GIB] [FOLDER]

A ViT-L with its heads, teacher and moments is about 1,500 tensors and 6 GiB.
"""

import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from dinov2.train.checkpoint import Checkpointer, SavedCheckpoint, Snapshot
from dinov2.train.checkpoint.sharding import own_pieces
from dinov2.utils.checkpoint.files import hash_file

TENSORS = 1500


def seconds(action: Callable[[], Any]) -> float:
    """Time of one call."""
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def save_with_torch(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """The usual way, as safe against a power failure as one file can be."""
    with path.open("wb") as file:
        torch.save(tensors, file)
        file.flush()
        os.fsync(file.fileno())


def main(gib: float, folder: Path) -> None:
    """Print the times of one state."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = int(gib * 2**30 / 4 / TENSORS)
    tensors = {f"model.tensor{number}": torch.randn(size, device=device) for number in range(TENSORS)}
    snapshots = [Snapshot(tensors, {"iteration": step}) for step in range(5)]
    times = {"torch.save and fsync": seconds(lambda: save_with_torch(tensors, folder / "state.pt"))}

    waiting = Checkpointer(folder / "checkpoints", keep_last=1)
    for step in (0, 1):
        times["save"] = seconds(lambda step=step: waiting.save(snapshots[step], step))
    times["of it, who writes what"] = seconds(lambda: own_pieces(tensors))
    background = Checkpointer(folder / "checkpoints", keep_last=1, background=True)
    for step in (2, 3):
        name = "save in the background, the first: training waits" if step == 2 else "the next: training waits"
        times[name] = seconds(lambda step=step: background.save(snapshots[step], step))
        times["then, beside the training"] = seconds(background.finish)

    path = folder / "checkpoints" / "step-0000003"
    times["hash"] = seconds(lambda: hash_file(path / "rank-00000.safetensors"))
    times["verify and open"] = seconds(lambda: SavedCheckpoint(path))
    saved = SavedCheckpoint(path)
    times["read"] = seconds(lambda: saved.read_into(tensors))
    print(f"{gib:g} GiB in {TENSORS:,} tensors on {device}, in {folder}")
    for name, value in times.items():
        print(f"{name:52s} {value:7.2f} s {value / gib:7.2f} s/GiB")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(dir=sys.argv[2] if len(sys.argv) > 2 else None) as temporary:
        main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0, Path(temporary))
