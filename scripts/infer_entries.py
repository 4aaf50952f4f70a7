"""Index a tar: writes {name}_entries[_{suffix}].npy, {name}_file_indices.npy and, with --csv, class-ids.npy.

Example: python scripts/infer_entries.py --tarball_path data/pretrain_dataset.tar --output_root data --name pretrain
Exit code: 0 done, 1 nothing selected, 2 refused (nothing written).
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.cli import run_command


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    from dinov2.data.tar_index.infer import IndexRequest, infer_entries  # slow, so not before the flags are right
    from dinov2.data.tar_index.labels import LabelColumns

    columns = LabelColumns(file=args.file_name, label=args.label_name, class_name=args.class_name)
    report = infer_entries(
        IndexRequest(
            args.tarball_path, args.output_root, args.name, args.suffix, args.keep, args.remove, args.csv, columns
        )
    )
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(report.line())
    if report.tiles or args.allow_empty:
        return 0
    print("error: no tile was selected; --allow-empty accepts that", file=sys.stderr)
    return 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; names and defaults are those of clemsgrs/dinov2."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tarball_path", type=Path, required=True, help="uncompressed .tar with the tiles")
    parser.add_argument("--output_root", type=Path, required=True, help="existing folder for the index files")
    parser.add_argument(
        "--name", "--prefix", dest="name", help="prefix of the index files: pretrain, query, test or a cohort"
    )
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
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
