"""The report of a training as one HTML file: curves, throughput, scores, faults and settings.

    python -m dinov2.visualize.run OUTPUT_DIR [--output FILE] [--png-dir DIR] [OTHER_RUN ...]

Works on a run that goes on, and needs matplotlib (the extra "viz"). Several runs are drawn over each other.
"""

import argparse
import sys
from pathlib import Path

from dinov2.utils.cli import Parser, run_command

from .run_check import check_is_run

REPORT = "report.html"


def get_args_parser() -> argparse.ArgumentParser:
    """The options of the report."""
    parser = Parser("dinov2.visualize.run", description="Write the report of a training.")
    parser.add_argument("output_dir", type=Path, metavar="OUTPUT_DIR", help="folder of the run")
    parser.add_argument("others", type=Path, nargs="*", metavar="OTHER_RUN", help="folders of runs to compare it with")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the HTML file (default: OUTPUT_DIR/{REPORT})")
    parser.add_argument("--png-dir", type=Path, metavar="DIR", help="also write every figure as a PNG file there")
    return parser


def main(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    for folder in (args.output_dir, *args.others):
        check_is_run(folder)
    from .report import write_report

    output = args.output or args.output_dir / REPORT
    written = write_report([args.output_dir, *args.others], output, png_dir=args.png_dir)
    sys.stdout.write("".join(f"{path}\n" for path in written))
    return 0


if __name__ == "__main__":
    run_command(lambda: main(get_args_parser().parse_intermixed_args()))
