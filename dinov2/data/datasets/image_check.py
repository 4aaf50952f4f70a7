"""Decoding every tile of a data set before anything depends on it."""

import logging
from concurrent.futures import ThreadPoolExecutor

from dinov2.distributed import get_global_rank, get_global_size
from dinov2.utils.machine import usable_cores

from .base import TileDataset, TileReadError
from .problems import Problems

logger = logging.getLogger("dinov2")

_BLOCK = 1 << 14  # tiles that are queued at once


def check_images(dataset: TileDataset) -> None:
    """Decode all tiles, those of several processes shared out between them.

    Raises:
        UserError: how many cannot be used, and what is wrong with the first few.
    """
    mine = range(get_global_rank(), len(dataset), get_global_size())
    num_threads = usable_cores()
    logger.info(f"decoding {len(mine):,} images, to find out which cannot be used")
    problems = Problems()

    def problem_of(index: int) -> str | None:
        try:
            dataset.get_image(index)
        except TileReadError as error:
            return f"{error.place}: {error.reason}"
        return None

    with ThreadPoolExecutor(num_threads) as threads:  # decoding runs outside Python's lock
        for first in range(0, len(mine), _BLOCK):
            for problem in threads.map(problem_of, mine[first : first + _BLOCK]):
                if problem:
                    problems.add(problem)
    problems.refuse(f"{problems.count:,} of {len(mine):,} images cannot be used")
