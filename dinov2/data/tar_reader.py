"""Reading tiles out of a tar by byte range.

pread instead of a memory map: a tar that shrinks under a running job gives a short read, which is an
error with a message, where a map would kill the process.
"""

import os
from pathlib import Path

from dinov2.errors import UserError


class TarReader:
    """Byte ranges of one uncompressed tar; opens it at the first read of each process."""

    def __init__(self, path: str | Path) -> None:
        """Check that the tar is there.

        Raises:
            UserError: if it is not.
        """
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(
                f"tarball {self.path} does not exist. The tiles are packed with `tar -chf {self.path.name} FOLDER` "
                "into the folder that `root=` names"
            )
        self._descriptor: int | None = None
        self._process = -1

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_descriptor": None, "_process": -1}

    def __del__(self) -> None:
        descriptor = getattr(self, "_descriptor", None)
        if descriptor is not None and self._process == os.getpid():
            os.close(descriptor)

    def read(self, start: int, end: int) -> bytes:
        """Bytes start to end, end excluded; fewer where the tar ends before."""
        if self._process != os.getpid():
            self._descriptor = os.open(self.path, os.O_RDONLY)
            self._process = os.getpid()
        assert self._descriptor is not None
        return os.pread(self._descriptor, end - start, start)
