"""Read an indexed tar again, all of it: headers, offsets, CRC-32 values, and whether every tile decodes.

The first time with --write_crc: only the CRC-32 tells that a byte has changed, since nearly every tile with a changed
byte still decodes, to a wrong picture. Training checks the values of the tiles that it reads.

Example: python scripts/verify_dataset.py --tarball_path data/pretrain_dataset.tar --output_root data --name pretrain \\
    --write_crc
Cohorts: python scripts/verify_dataset.py --tarball_path data --output_root data --name pretrain
Bad tiles are listed in {name}_verified[_{suffix}].jsonl. Exit code: 0 all good, 1 something is bad, 2 refused.
"""

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.cli import Parser, run_command

SHOWN = 10


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    from dinov2.data.tar_index.verify import VerifyRequest, verify_dataset  # slow, so not before the flags are right

    report = verify_dataset(VerifyRequest(**vars(args)))
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    for fault in report.archive:
        print(f"bad: {fault}", file=sys.stderr)
    for problem in report.problems[:SHOWN]:
        print(f"bad: row {problem.row:,} ({problem.name}): {problem.reason}", file=sys.stderr)
    print(report.line())
    if report.unwritten:
        raise report.unwritten
    return 0 if report.good else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags, named like the fields of `VerifyRequest`."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--tarball_path", dest="tar", type=Path, required=True, help="the tar, or the folder of the cohorts' tars"
    )
    parser.add_argument("--output_root", dest="extra", type=Path, required=True, help="folder with the index files")
    parser.add_argument("--name", "--prefix", dest="name", help="prefix of the index files")
    parser.add_argument("--suffix", help="subset")
    parser.add_argument(
        "--workers", type=int, default=len(os.sched_getaffinity(0)), help="processes (default: all cores)"
    )
    parser.add_argument("--no-decode", dest="decode", action="store_false", help="do not decode the images")
    parser.add_argument("--write_crc", "--write-crc", action="store_true", help="record the CRC-32 of every tile")
    parser.add_argument(
        "--max_pixels", "--max-pixels", type=int, help="of a tile, where training raises data.max_pixels"
    )
    parser.add_argument("--report", type=Path, help="where to list bad tiles (default: beside the index)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
