"""Join the entries of several cohorts: writes pretrain_entries[_{suffix}].npy (n x 5) and cohort_indices.npy.

Index each cohort first: python scripts/infer_entries.py --tarball_path data/A.tar --output_root data --name A
Then join them:          python scripts/concat_entries.py --root data --output_root data
Exit code: 0 done, 1 no tile in any cohort, 2 refused (nothing written).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.cli import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    from dinov2.data.tar_index.concat import ConcatRequest, concat_entries  # slow, so not before the flags are right

    report = concat_entries(ConcatRequest(args.root, args.output_root, args.suffix, tuple(args.cohorts)))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(report.line())
    return 0 if any(report.rows.values()) or args.allow_empty else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; names are those of clemsgrs/dinov2."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-r", "--root", type=Path, required=True, help="folder with {cohort}_entries[_{suffix}].npy")
    parser.add_argument("-o", "--output_root", type=Path, required=True, help="existing folder for the joined files")
    parser.add_argument("-s", "--suffix", help="subset: chooses the inputs and names the output")
    parser.add_argument("--cohorts", nargs="+", default=(), help="which cohorts (default: all but query and test)")
    parser.add_argument("--allow-empty", action="store_true", help="exit with 0 even if no cohort has a tile")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
