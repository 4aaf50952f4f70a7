"""Open files of this process, not too many of them."""

import os
from collections.abc import Callable, Hashable
from typing import Generic, Protocol, TypeVar

from dinov2.utils.open_files import limit


class Closable(Protocol):
    """Anything that holds a file open."""

    def close(self) -> None:
        """Let go of it."""


Handle = TypeVar("Handle", bound=Closable)


class Handles(Generic[Handle]):
    """Handles by key; the one not used for longest is closed when there are too many.

    Pickled without them. After a fork the child closes its copies of the parent's, which leaves the parent's as they
    are, and opens its own.
    """

    def __init__(self, most: int = 256) -> None:
        """Hold at most `most` files open, and no more than a quarter of what the system allows."""
        self.most = max(1, min(most, limit() // 4))
        self._handles: dict[Hashable, Handle] = {}  # by last use, the latest last
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_handles": {}}

    def get(self, key: Hashable, open_handle: Callable[[], Handle]) -> Handle:
        """The handle of a key, opened if it is not."""
        if self._process != os.getpid():
            self.close()
            self._process = os.getpid()
        handle = self._handles.pop(key) if key in self._handles else open_handle()
        self._handles[key] = handle
        if len(self._handles) > self.most:
            self._handles.pop(next(iter(self._handles))).close()
        return handle

    def close(self) -> None:
        """Close all."""
        while self._handles:
            self._handles.popitem()[1].close()
