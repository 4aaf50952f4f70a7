"""Choosing the next tile: uniformly, by slide, and by slide with torch's WeightedRandomSampler.

Slides have a log-normal number of tiles, 1,000 on average. For every order, in a process of its own: the CPU time and
memory until it can say the first tile, and the time of each tile, asked for one by one as workers do.

python benchmarks/sample_order.py --tiles 10000000
"""

import argparse
import multiprocessing
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

from dinov2.data.groups import Groups
from dinov2.data.permutation import Permutation
from dinov2.data.weighted_order import EQUAL, WeightedOrder, group_weights

SLIDE_TILES = 1000
ASKED = 20_000  # tiles that are timed


def main() -> None:
    """Print a line for every order."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiles", type=int, default=10_000_000, help="WeightedRandomSampler takes 16,777,216 at most")
    tiles = parser.parse_args().tiles
    print(f"{tiles:,} tiles of {len(make_slides(tiles).names):,} slides")
    print(f"{'order':34} {'ready, ms':>10} {'memory, MB':>11} {'a tile, us':>11} {'tiles/s':>10} {'to uniform':>11}")
    uniform = 0.0
    for name in ORDERS:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            ready, memory, each = executor.submit(measure, name, tiles).result()
        uniform = uniform or each
        line = f"{name:34} {1e3 * ready:10.1f} {memory / 1e6:11.1f} {1e6 * each:11.1f} {1 / each:10,.0f}"
        print(f"{line} {each / uniform:11.1f}")


def measure(name: str, tiles: int) -> tuple[float, int, float]:
    """CPU seconds until the first tile, bytes of memory that took, and CPU seconds for each tile."""
    slides = make_slides(tiles)
    positions = np.random.default_rng(1).integers(0, slides.size, ASKED).tolist()
    before, began = _peak(), time.process_time()
    item = ORDERS[name](slides)
    item(0)
    ready, memory = time.process_time() - began, _peak() - before
    began = time.process_time()
    for position in positions:
        item(position)
    return ready, memory, (time.process_time() - began) / ASKED


def make_slides(tiles: int) -> Groups:
    """Slides of very different sizes, their tiles next to each other."""
    spread = np.random.default_rng(0).lognormal(0.0, 1.0, max(1, tiles // SLIDE_TILES))
    ends = np.round(np.cumsum(spread) / spread.sum() * tiles).astype(np.int64)
    sizes = np.diff(ends, prepend=0)
    sizes = sizes[sizes > 0]
    runs = np.column_stack([np.arange(len(sizes)), np.cumsum(sizes) - sizes, sizes])
    return Groups(runs, [f"slide {number}" for number in range(len(sizes))])


def with_torch(slides: Groups) -> Callable[[int], int]:
    """The usual recipe: a weight for every tile, and all draws of an epoch at once, in sequence."""
    weights = torch.from_numpy(np.repeat(1.0 / slides.sizes, slides.sizes))
    draws = iter(WeightedRandomSampler(weights, len(weights)))  # type: ignore[arg-type]
    return lambda position: next(draws)


ORDERS: dict[str, Callable[[Groups], Callable[[int], int]]] = {
    "uniform (Permutation)": lambda slides: Permutation(slides.size, 0, 0).item,
    "by slide (WeightedOrder)": lambda slides: WeightedOrder(slides, group_weights(slides, EQUAL), 0, 0).item,
    "by slide (WeightedRandomSampler)": with_torch,
}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
