"""Checkpoints that are whole or not there.

A checkpoint is a folder `checkpoints/step-0000123`, written aside, flushed, sealed with a manifest of sizes and
SHA-256 sums, and renamed into place. Loading verifies the manifest before anything is read, and reads tensors
and plain values only (`weights_only`), so a checkpoint cannot run code.
"""

import hashlib
import json
import logging
import os
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from dinov2.distributed import barrier, broadcast_object, is_main_process
from dinov2.errors import UserError
from dinov2.utils.atomic import fsync

logger = logging.getLogger("dinov2")

MANIFEST = "manifest.json"
STATE = "state.pt"
_NAME = re.compile(r"step-(\d{7,})")


class Checkpointer:
    """Saves and finds the checkpoints of one run."""

    def __init__(self, folder: Path, *, keep_last: int = 3) -> None:
        """Use a folder; `keep_last` newest checkpoints stay, 0 keeps all."""
        self.folder = folder
        self.keep_last = keep_last

    def save(self, state: dict[str, Any], step: int) -> None:
        """Write a checkpoint of a state after `step` steps; all ranks call it, the main process writes."""
        if is_main_process():
            path = self.folder / f"step-{step:07d}"
            if path.exists() and find_damage(path):
                shutil.rmtree(path)
            if not path.exists():
                _write_folder(path, state, step)
                logger.info(f"saved {path}")
            self._retire()
        barrier()

    def load_newest(self) -> dict[str, Any] | None:
        """The newest state that is intact, or None where there is no checkpoint at all.

        Raises:
            UserError: if there are checkpoints, but all are damaged.
        """
        path = broadcast_object(self._find_newest() if is_main_process() else None)
        if isinstance(path, UserError):
            raise path
        if path is None:
            return None
        logger.info(f"resuming from {path}")
        return _load_state(path)

    def steps(self) -> list[int]:
        """Steps of all checkpoints on disk, ascending."""
        if not self.folder.is_dir():
            return []
        names = (_NAME.fullmatch(path.name) for path in self.folder.iterdir())
        return sorted(int(name.group(1)) for name in names if name)

    def _find_newest(self) -> Path | UserError | None:
        damages = []
        for step in reversed(self.steps()):
            path = self.folder / f"step-{step:07d}"
            damage = find_damage(path)
            if damage is None:
                return path
            logger.warning(f"{path} is damaged and passed over: {damage}")
            damages.append(f"{path.name}: {damage}")
        if damages:
            return UserError(
                f"all checkpoints in {self.folder} are damaged ({'; '.join(damages)}). Restore one of them, move the "
                "folder away to start from scratch, or start over with --no-resume"
            )
        return None

    def _retire(self) -> None:
        """Remove the oldest checkpoints on disk, and what unfinished writes have left."""
        for leftover in self.folder.glob(".step-*.tmp"):
            shutil.rmtree(leftover, ignore_errors=True)
        for step in self.steps()[: -self.keep_last] if self.keep_last else []:
            # Renamed first: a half-removed folder must not look like a checkpoint.
            doomed = self.folder / f".step-{step:07d}.tmp"
            (self.folder / f"step-{step:07d}").rename(doomed)
            shutil.rmtree(doomed)


RUN_FILES = ("checkpoints", "eval", "results", "training_metrics.json")


def set_aside(output_dir: Path) -> None:
    """Move what a run has written into output_dir/before-N, for a run that starts over; nothing is deleted."""
    written = [output_dir / name for name in RUN_FILES if (output_dir / name).exists()]
    if is_main_process() and written:
        number = 1
        while (aside := output_dir / f"before-{number}").exists():
            number += 1
        aside.mkdir()
        for path in written:
            path.rename(aside / path.name)
        logger.warning(f"starting over: what the run before has written is now in {aside}")
    barrier()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The state in one checkpoint folder.

    Raises:
        UserError: if it is missing or damaged.
    """
    damage = find_damage(path)
    if damage:
        raise UserError(f"checkpoint folder {path} cannot be used: {damage}")
    return _load_state(path)


def _load_state(path: Path) -> dict[str, Any]:
    return torch.load(path / STATE, map_location="cpu", weights_only=True)


def _write_folder(path: Path, state: dict[str, Any], step: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        torch.save(state, temporary / STATE)
        manifest = {"format": 1, "step": step, "files": {STATE: _fingerprint(temporary / STATE)}}
        (temporary / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")
        for file in (STATE, MANIFEST, "."):
            fsync(temporary / file)
        temporary.rename(path)
        fsync(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def find_damage(path: Path) -> str | None:
    """What is wrong with a checkpoint folder; None if it is intact."""
    try:
        expected = json.loads((path / MANIFEST).read_text(encoding="utf-8"))["files"][STATE]
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"its {MANIFEST} cannot be read ({error})"
    try:
        found = _fingerprint(path / STATE)
    except OSError as error:
        return f"{STATE} cannot be read ({error})"
    return None if found == expected else f"{STATE} is not what was written"


def _fingerprint(path: Path) -> dict[str, Any]:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}
