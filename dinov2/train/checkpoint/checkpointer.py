"""Saves, finds and keeps the checkpoints of one run."""

import logging
import shutil
import threading
from collections.abc import Callable, Collection
from pathlib import Path

import torch

from dinov2.distributed import all_reduce_max, is_main_process
from dinov2.distributed.outcomes import SharedError, on_main
from dinov2.errors import UserError
from dinov2.utils.checkpoint import DamagedError, Manifest

from .loading import SavedCheckpoint
from .retention import checkpoint_path, retire, steps_on_disk, steps_to_retire
from .saving import SaveError, Saving, Version
from .snapshot import HostCopies, Snapshot, json_digest

logger = logging.getLogger("dinov2")


class Checkpointer:
    """The checkpoints of one run; all ranks call every method but `steps` together."""

    def __init__(
        self,
        folder: Path,
        *,
        keep_last: int = 3,
        keep_every: int | None = None,
        background: bool = False,
        stop_on_error: bool = False,
    ) -> None:
        """Use a folder.

        Args:
            keep_last: so many newest checkpoints stay; 0 keeps all.
            keep_every: checkpoints of multiples of so many steps stay for good; None: of none.
            background: write in a thread, from a copy of the state in host memory, while training goes on.
            stop_on_error: raise where a checkpoint cannot be saved, instead of going on without it.
        """
        self.folder = folder
        self.keep_last = keep_last
        self.keep_every = keep_every
        self.stop_on_error = stop_on_error
        self._copies = HostCopies() if background else None
        self._saving: Saving | None = None
        self._thread: threading.Thread | None = None
        self._newest: Version | None = None  # of what this process has written or verified last
        self._failure: SaveError | None = None  # of the last attempt to save

    def save(self, snapshot: Snapshot, step: int) -> None:
        """Save a state after `step` steps, as soon as a save before it has ended.

        In the background this returns when the state is copied; `poll` or `finish` complete the checkpoint.

        Raises:
            SaveError: on all ranks, if this save or the one before it fails and a failure is to stop the run.
        """
        self._conclude()
        version = Version(step, json_digest(snapshot.values))
        if on_main(lambda: version == self._newest):
            return
        saving = Saving(checkpoint_path(self.folder, step), version)
        if not self._attempt(saving, lambda: saving.begin(snapshot, self._copies)):
            return
        self._saving = saving
        if self._copies is None:
            saving.write()
            self._conclude()
        else:
            self._thread = threading.Thread(target=saving.write, name="checkpoint", daemon=True)
            self._thread.start()

    def poll(self) -> None:
        """Complete a checkpoint that was written in the background, if all ranks are done with it.

        Raises:
            SaveError: as `save`.
        """
        if self._thread is not None:
            writing = torch.tensor(self._thread.is_alive(), dtype=torch.int32)
            if not all_reduce_max(writing):
                self._conclude()

    def finish(self) -> None:
        """Wait for a save in the background; nothing may be lost after this.

        Raises:
            SaveError: on all ranks, if the last attempt to save has failed.
        """
        self._conclude()
        if self._failure is not None:
            raise self._failure

    def load_newest(self) -> SavedCheckpoint | None:
        """The newest checkpoint that is intact, or None where there is none at all.

        Raises:
            UserError: if there are checkpoints, but all are damaged.
        """
        damages = []
        for step in reversed(on_main(self.steps)):
            try:
                saved = SavedCheckpoint(checkpoint_path(self.folder, step), step)
            except DamagedError as damage:
                logger.warning(f"{damage}. It is passed over")
                damages.append(str(damage))
                continue
            self._newest = Version(step, json_digest(saved.values))
            return saved
        if damages:
            raise UserError(
                f"all checkpoints of the run are damaged ({'; '.join(damages)}). Restore one of them, move "
                f"{self.folder} away to start from scratch, or start over with --no-resume"
            )
        return None

    def remove_old(self, newest: int, kept: Collection[int]) -> None:
        """Remove checkpoints that are not to stay beside an intact one, as a kill right after its save leaves them."""
        on_main(lambda: self._remove_old(newest, kept))

    def steps(self) -> list[int]:
        """Steps of all checkpoints on disk, ascending."""
        return steps_on_disk(self.folder)

    def _conclude(self) -> None:
        """Bring a begun save to its end."""
        saving, self._saving = self._saving, None
        if saving is None:
            return
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._attempt(saving, lambda: self._commit(saving)):
            self._newest, self._failure = saving.version, None

    def _commit(self, saving: Saving) -> None:
        manifest = saving.commit()
        if is_main_process():
            logger.info(f"saved {saving.path}, {manifest.num_bytes / 2**20:,.1f} MiB")
            self._remove_old(manifest.step, saving.kept)
            self._look_for_room(manifest)

    def _attempt(self, saving: Saving, action: Callable[[], None]) -> bool:
        """Take a step of a save; whether it succeeded, which is the same on all ranks."""
        try:
            action()
            return True
        except (OSError, UserError, SharedError) as error:
            self._failure = _explained(saving, error)
            if self.stop_on_error:
                raise self._failure from error
            logger.error(f"{self._failure}. Training goes on", exc_info=not isinstance(error, OSError))
            return False

    def _remove_old(self, newest: int, kept: Collection[int]) -> None:
        try:
            steps = steps_to_retire(
                self.steps(), newest, keep_last=self.keep_last, keep_every=self.keep_every, kept=kept
            )
            for step in steps:
                retire(self.folder, step)
        except OSError as error:
            logger.warning(f"old checkpoints in {self.folder} cannot be removed: {error}")

    def _look_for_room(self, manifest: Manifest) -> None:
        try:
            free = shutil.disk_usage(self.folder).free
        except OSError:
            return
        if free < 2 * manifest.num_bytes:
            logger.warning(
                f"{free / 2**20:,.0f} MiB are free in {self.folder}, less than two more checkpoints of "
                f"{manifest.num_bytes / 2**20:,.0f} MiB need: make room, or lower train.keep_last"
            )


def _explained(saving: Saving, error: Exception) -> SaveError:
    return SaveError(
        f"the checkpoint {saving.path} could not be saved: {error}. The checkpoints before it are untouched; make sure "
        "that the disk has room and can be written to"
    )
