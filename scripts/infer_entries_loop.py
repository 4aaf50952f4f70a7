"""Index every tar of a folder: for A.tar, B.tar, ... what scripts/infer_entries.py writes with --name A, B, ...

Example: python scripts/infer_entries_loop.py --source tars --output data
Then join them: python scripts/concat_entries.py --root data --output_root data
A tar that is refused does not keep the others from being indexed.
Exit code: 0 done, 1 nothing selected in one of them, 2 one was refused.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(1, str(Path(__file__).resolve().parent))

from infer_entries import add_flags, request

from dinov2.utils.cli import Parser, run_command
from dinov2.utils.outputs import try_folder


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    from dinov2.data.tar_index.infer_all import infer_all  # slow, so not before the flags are right

    try_folder(args.output)
    report = infer_all(args.source, request(args, tarball=args.source, output_root=args.output, name=None), tell=tell)
    print(report.line())
    if report.refused:
        return 2
    return 1 if report.empty and not args.allow_empty else 0


def tell(tar: Path, outcome: object) -> None:
    """Say what became of one tar."""
    for warning in getattr(outcome, "warnings", ()):
        print(f"warning: {tar.name}: {warning}", file=sys.stderr)
    if isinstance(outcome, Exception):
        print(f"error: {outcome}", file=sys.stderr)
    else:
        print(outcome.line(), flush=True)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; names and defaults are those of clemsgrs/dinov2."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source", type=Path, required=True, help="folder with the .tar files")
    parser.add_argument("--output", type=Path, required=True, help="folder for the index files; made if need be")
    add_flags(parser)
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
