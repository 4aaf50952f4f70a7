"""Writes the demonstration data set: `python -m dinov2.data.demo --output DIR --seed 0`."""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path

from dinov2.utils.cli import Parser, run_command

logger = logging.getLogger("dinov2")


def parse_arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = Parser(
        prog="python -m dinov2.data.demo",
        description="Draws a synthetic H&E data set with labels and a split by slide.",
    )
    parser.add_argument("--output", type=Path, required=True, help="new or empty folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-tiles", type=int, default=2400, help="in all (default: 2400)")
    parser.add_argument("--num-slides", type=int, default=24, help="in all (default: 24)")
    parser.add_argument("--tile-size", type=int, default=256, help="edge in px (default: 256)")
    parser.add_argument("--num-workers", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--baselines", action="store_true", help="also measure how far colour alone gets")
    return parser.parse_args()


def progress_logger() -> Callable[[int, int], None]:
    """A callback that logs each tenth of the way once."""
    logged = 0

    def log(done: int, total: int) -> None:
        nonlocal logged
        if done * 10 // total > logged:
            logged = done * 10 // total
            logger.info("drawn %d of %d tiles", done, total)

    return log


def main() -> None:
    """Draws, writes and describes the data set."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = parse_arguments()
    from dinov2.data.demo.baselines import colour_baselines
    from dinov2.data.demo.slides import make_demo_dataset

    dataset = make_demo_dataset(
        arguments.output,
        seed=arguments.seed,
        num_tiles=arguments.num_tiles,
        num_slides=arguments.num_slides,
        tile_size=arguments.tile_size,
        num_workers=arguments.num_workers,
        progress=progress_logger(),
    )
    logger.info("%s: tiles per split %s", dataset.labels_csv, dataset.tiles_per_split)
    if arguments.baselines:
        logger.info("20-NN balanced accuracy by colour: %s", colour_baselines(dataset))


if __name__ == "__main__":
    run_command(main)
