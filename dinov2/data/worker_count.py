"""How many workers a loader gets: what was asked for, as far as cores and memory go."""

import logging
from functools import cache

from dinov2.distributed import get_local_size
from dinov2.utils.machine import free_memory, usable_cores

logger = logging.getLogger("dinov2")

WORKER_BYTES = 256 << 20  # that a worker has for itself
BATCHES = 2  # that a worker prepares ahead


def image_bytes(size: int) -> int:
    """Of a square float32 image."""
    return 3 * 4 * size**2


def usable_workers(asked: int, *, key: str, batch_bytes: int) -> int:
    """One worker a core at most, of the cores that this process has its share of, and no more than fit into memory.

    Args:
        key: of the setting, for the log.
        batch_bytes: of one batch of images.
    """
    processes = get_local_size()
    cores = max(usable_cores() // processes, 1)
    free, each = free_memory(), WORKER_BYTES + BATCHES * batch_bytes
    by_memory = asked if free is None else max(free // processes // each, 1)
    usable = min(asked, cores, by_memory)
    if usable < asked:
        reason = f"{cores} cores" if cores <= by_memory else f"memory for {by_memory}, of {each / 2**20:,.0f} MiB each"
        _say(f"{key}={asked}: this process has {reason}; workers that decode tiles: {usable}")
    return usable


@cache
def _say(text: str) -> None:
    logger.warning(text)
