"""Progress of long work: a bar on a terminal, elsewhere a line of the log now and then."""

import logging
import sys
import time
from datetime import timedelta
from types import TracebackType

from dinov2.distributed import is_main_process

logger = logging.getLogger("dinov2")

FIRST_LINE, LINE_EVERY = 10.0, 30.0  # seconds


class Progress:
    """How much of something is done, at what rate, and how long the rest takes; told by the main process alone.

    A context manager; at its end one line says how long it took.
    """

    def __init__(self, title: str, total: int, unit: str = "tiles", *, quiet: bool = False) -> None:
        """Begin.

        Args:
            title: what is done.
            total: how many units it has.
            quiet: say nothing about what is done before the first line would come.
        """
        from tqdm import tqdm

        self.title, self.total, self.unit, self.quiet = title, total, unit, quiet
        self.done = 0.0
        self._began = time.monotonic()
        self._next = self._began + FIRST_LINE
        hidden = not (sys.stderr.isatty() and is_main_process())
        self._bar = tqdm(total=total, desc=title, unit=f" {unit}", leave=False, disable=hidden, dynamic_ncols=True)

    def add(self, count: float) -> None:
        """Count units as done, never more than there are."""
        before, self.done = int(self.done), min(self.done + count, self.total)
        self._bar.update(int(self.done) - before)
        now = time.monotonic()
        if now >= self._next and self._bar.disable and self.done < self.total:
            self._next = now + LINE_EVERY
            left = timedelta(seconds=round((now - self._began) * (self.total - self.done) / max(self.done, 1e-9)))
            self._say(f"{int(self.done):,} of {self.total:,} {self.unit}, {self._rate(now)}, {left} left")

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._bar.close()
        now = time.monotonic()
        if kind is None and not (self.quiet and now - self._began < FIRST_LINE):
            took = timedelta(seconds=round(now - self._began))
            self._say(f"{self.total:,} {self.unit} in {took}, {self._rate(now)}")

    def _rate(self, now: float) -> str:
        return f"{self.done / max(now - self._began, 1e-9):,.3g} {self.unit}/s"

    def _say(self, text: str) -> None:
        if is_main_process():
            logger.info(f"{self.title}: {text}")
