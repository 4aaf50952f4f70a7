"""One command from a folder of images to a training set: a tar, its index, and the CRC-32 of every tile.

Example: python scripts/prepare_dataset.py --images tiles --output_root data
Prints what to put into the configuration. Exit code: 0 done, 1 some tiles are bad, or there are none, 2 refused.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.cli import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    from dinov2.data.tar_index.prepare import PrepareRequest, prepare_dataset  # slow, so not before the flags are right

    request = PrepareRequest(**vars(args))
    index, check = prepare_dataset(request)
    print(f"{index.line()}\n{check.line()}")
    if check.unwritten:
        raise check.unwritten
    if request.name == "pretrain":
        print(f"\nin the configuration:\n  train:\n    dataset_path: '{request.dataset_string}'")
    else:
        print(f"\nnext, for each split: scripts/infer_entries.py --tarball_path {request.tar} --name query --keep ...")
    return 0 if check.good and index.tiles else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags, named like the fields of `PrepareRequest`."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, with or without subfolders")
    parser.add_argument("--output_root", type=Path, required=True, help="where to put the tar and its index")
    parser.add_argument("--name", default="pretrain", help="pretrain or downstream: the tar is {name}_dataset.tar")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes that check the tiles"
    )
    parser.add_argument(
        "--max_pixels", "--max-pixels", type=int, help="of a tile, where training raises data.max_pixels"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a tar that is there")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
