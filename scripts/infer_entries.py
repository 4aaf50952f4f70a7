"""Index a tar: writes {name}_entries[_{suffix}].npy, {name}_file_indices.npy and, with --csv, class-ids.npy.

Example: python scripts/infer_entries.py --tarball_path data/pretrain_dataset.tar --output_root data --name pretrain
All tars of a folder: scripts/infer_entries_loop.py.
Exit code: 0 done, 1 nothing selected, 2 refused (nothing written).
"""

import argparse
import gc
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.cli import Parser, run_command

if TYPE_CHECKING:
    from dinov2.data.tar_index.infer import IndexRequest


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    gc.set_threshold(100_000)  # nothing makes cycles here, and looking for them takes a tenth of the time
    from dinov2.data.tar_index.infer import infer_entries  # slow, so not before the flags are right

    report = infer_entries(request(args, tarball=args.tarball_path, output_root=args.output_root, name=args.name))
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(report.line())
    if report.tiles or args.allow_empty:
        return 0
    print("error: no tile was selected; --allow-empty accepts that", file=sys.stderr)
    return 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; names and defaults are those of clemsgrs/dinov2."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tarball_path", type=Path, required=True, help="uncompressed .tar with the tiles")
    parser.add_argument("--output_root", type=Path, required=True, help="existing folder for the index files")
    parser.add_argument(
        "--name", "--prefix", dest="name", help="prefix of the index files: pretrain, query, test or a cohort"
    )
    add_flags(parser)
    return parser.parse_args(argv)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """What says which tiles are indexed and with which labels, in one tar or in many."""
    parser.add_argument("--suffix", help="name of the subset, appended to the entries file")
    parser.add_argument(
        "--keep", type=Path, help="text file with the tiles to keep, one base name or member path a line"
    )
    parser.add_argument("--remove", type=Path, help="text file with the tiles to leave out")
    parser.add_argument("--csv", type=Path, help="csv file with a label for every tile")
    parser.add_argument("--file_name", default="filename", help="its column with base names or member paths")
    parser.add_argument("--label_name", default="label", help="its column with labels: whole numbers or texts")
    parser.add_argument("--class_name", default="class", help="its column with class names, if there is one")
    parser.add_argument("--allow-empty", action="store_true", help="exit with 0 even if nothing was selected")


def request(args: argparse.Namespace, *, tarball: Path, output_root: Path, name: str | None) -> "IndexRequest":
    """The flags of `add_flags`, for a tar."""
    from dinov2.data.tar_index.infer import IndexRequest
    from dinov2.data.tar_index.labels import LabelColumns

    columns = LabelColumns(file=args.file_name, label=args.label_name, class_name=args.class_name)
    return IndexRequest(tarball, output_root, name, args.suffix, args.keep, args.remove, args.csv, columns)


if __name__ == "__main__":
    run_command(main)
