"""One checkpoint on its way to the disk.

All ranks begin together, each writes its own file without waiting for the others, and all commit together. Until the
main process renames the folder there is no checkpoint, and after that it is complete.
"""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from dinov2.distributed import all_gather_object, get_global_rank, get_global_size, is_main_process
from dinov2.distributed.outcomes import on_all, on_main
from dinov2.errors import ExitCode, UserError
from dinov2.utils.atomic import fsync, remove_abandoned, temporary_path
from dinov2.utils.checkpoint.files import FileRecord, Piece, tensor_blocks, write_file
from dinov2.utils.checkpoint.manifest import MANIFEST, Manifest
from dinov2.utils.checkpoint.reading import VALUES
from dinov2.utils.faults import fault_point

from .sharding import own_pieces
from .snapshot import HostCopies, Snapshot


class SaveError(UserError):
    """A checkpoint that could not be saved; those before it are untouched."""

    exit_code = ExitCode.FAILED


class Version(NamedTuple):
    """What tells a checkpoint from the others of a run: its tensors are a function of the step."""

    step: int
    values_digest: str


class Saving:
    """A checkpoint that is being written; every method but `write` is called by all ranks together."""

    def __init__(self, path: Path, version: Version) -> None:
        """Announce a checkpoint that will be the folder `path`."""
        self.path = path
        self.version = version
        self._temporary = path  # where it is written; another path after `begin`
        self._cleanup = ExitStack()
        self._pieces: list[Piece] = []
        self._values = b""
        self._config_digest = ""
        self.kept: frozenset[int] = frozenset()  # see `Snapshot`
        self._files: dict[str, FileRecord] = {}
        self._failure: Exception | None = None

    def begin(self, snapshot: Snapshot, copies: HostCopies | None = None) -> None:
        """Make the temporary folder and take hold of the state.

        Args:
            copies: where to copy the state to, if it will change before `write` is done.
        Raises:
            OSError, SharedError: on all ranks, if one of them cannot.
        """
        self._config_digest, self.kept = snapshot.config_digest, snapshot.kept
        self._values = json.dumps(snapshot.values, indent=1).encode()
        try:
            self._temporary = on_main(self._make_folder)
            pieces = own_pieces(snapshot.tensors)
            self._pieces = on_all(lambda: copies.take(pieces)) if copies else pieces
        except BaseException:
            self._cleanup.close()
            raise

    def write(self) -> None:
        """Write this rank's share; may run in a thread. How it went is for `commit` to say."""
        try:
            self._write_share()
        except Exception as error:
            self._failure = error

    def commit(self) -> Manifest:
        """Make the checkpoint valid.

        Raises:
            OSError, SharedError: on all ranks, if one of them could not write, or the main process not finish.
        """
        with self._cleanup:
            on_all(self._check_share)
            parts = all_gather_object(self._files)
            files = {name: record for part in parts for name, record in part.items()}
            manifest = Manifest(self.version.step, get_global_size(), self._config_digest, files)
            on_main(lambda: self._seal(manifest))
        return manifest

    def _make_folder(self) -> Path:
        fault_point("save.begin")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(self.path.parent)
        temporary = self._cleanup.enter_context(temporary_path(self.path))
        temporary.mkdir()
        fault_point("save.after_mkdir")
        return temporary

    def _write_share(self) -> None:
        if self._pieces:
            name = f"rank-{get_global_rank():05d}.safetensors"
            fault_point("shard.before_open")
            self._files[name] = write_file(self._temporary / name, tensor_blocks(self._pieces))
            fault_point("shard.written")
        if is_main_process():
            self._files[VALUES] = write_file(self._temporary / VALUES, [self._values])
            fault_point("values.written")
        fault_point("save.before_agreement")

    def _check_share(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _seal(self, manifest: Manifest) -> None:
        fault_point("save.before_manifest")
        write_file(self._temporary / MANIFEST, [manifest.to_text().encode()])
        fault_point("save.before_folder_fsync")
        fsync(self._temporary)
        fault_point("save.before_rename")
        self._take_place()
        fault_point("save.after_rename")
        fsync(self.path.parent)
        fault_point("save.after_parent_fsync")

    def _take_place(self) -> None:
        """Make the temporary folder the checkpoint; what is there of the same step goes when that is done."""
        if not self.path.exists():
            self._temporary.rename(self.path)
            return
        with temporary_path(self.path) as replaced:
            self.path.rename(replaced)
            try:
                self._temporary.rename(self.path)
            except OSError:
                replaced.rename(self.path)
                raise
