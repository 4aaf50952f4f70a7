"""What every rank is doing, so that one that waits can say for whom.

A thread of each rank writes it to the store where they met every few seconds. A rank that is stuck still says so; one
that is stopped, or whose machine is gone, is no longer heard of. A store that is gone with its process ends nothing:
the collectives tell that.
"""

import atexit
import json
import logging
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from typing import NamedTuple

import torch.distributed as dist

from .environment import LaunchEnvironment
from .last_collective import progress
from .meeting import whoami

logger = logging.getLogger("dinov2")

EVERY = 2.0  # seconds between two signs of life
SILENT = 10.0  # seconds without one that are worth a word
FIRST_NOTICE = 10.0  # seconds in a collective; the next ones after twice as long each


def _activity() -> str:
    return "starting"


def set_activity(describe: Callable[[], str]) -> None:
    """Choose what tells the other ranks what this process is doing."""
    global _activity
    _activity = describe


class _Sign(NamedTuple):
    """A sign of life, as it is written."""

    beat: int
    collective: int  # number of the last one
    waits: bool  # in that
    who: str
    activity: str


class Whereabouts:
    """What the ranks of a group do, from when they have met until `close`."""

    def __init__(self, store: dist.Store, launch: LaunchEnvironment) -> None:
        """Begin to tell it, through a connection that nobody else uses: others would wait for each other's answers."""
        self.behind: list[str] = []  # the ranks that this one waits for, as of the last look
        store.set_timeout(timedelta(seconds=SILENT))
        self._store, self._rank = store, launch.rank
        self._others = [rank for rank in range(launch.world_size) if rank != launch.rank]
        self._heard: dict[int, tuple[int, float]] = {}  # last beat of a rank, and when it was new
        self._beat, self._notice = 0, FIRST_NOTICE
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="whereabouts", daemon=True)
        self._thread.start()
        atexit.register(self.close)  # a thread in the middle of a request would abort the process

    def close(self) -> None:
        """Tell no more."""
        self._ended.set()
        self._thread.join(SILENT)  # longer where rank 0, which is the store, is stopped
        atexit.unregister(self.close)

    def _run(self) -> None:
        while True:
            self._say()
            if self._ended.wait(EVERY):
                return

    def _say(self) -> None:
        """Give a sign of life, and say for whom this rank waits, if it has for long."""
        number, waited = progress()
        sign = _Sign(self._beat, number, waited is not None, whoami(), _activity())
        self._beat += 1
        try:
            self._store.set(f"doing/{self._rank}", json.dumps(sign))
            self.behind = self._look(sign)
        except dist.DistError:
            return
        if waited is None or waited < FIRST_NOTICE:
            self._notice = FIRST_NOTICE
        elif waited > self._notice and self.behind:
            logger.warning(f"waiting for {'; '.join(self.behind[:5])}")
            self._notice *= 2

    def _look(self, own: _Sign) -> list[str]:
        """Ranks that are not as far as this one, or not heard of."""
        keys = [f"doing/{rank}" for rank in self._others]
        if not keys or not self._store.check(keys):
            return []
        now, found = time.monotonic(), []
        for rank, text in zip(self._others, self._store.multi_get(keys)):
            sign = _Sign(*json.loads(text))
            if self._heard.get(rank, (None, 0.0))[0] != sign.beat:
                self._heard[rank] = (sign.beat, now)
            silent = now - self._heard[rank][1]
            if silent > SILENT:
                activity = f"not heard of for {silent:.0f} s: stopped, or its machine is gone; last {sign.activity}"
                found.append(f"rank {rank} ({sign.who}), {activity}")
            elif own.waits and (sign.collective, sign.waits) < (own.collective, True):
                found.append(f"rank {rank} ({sign.who}), {sign.activity}")
        return found
