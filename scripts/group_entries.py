"""Find out which slide every tile of an index was cut from: writes {name}_groups[_{suffix}].npy and
{name}_group_names[_{suffix}].json, by which training can draw (data.draw_by: slide).

Index the tar first: python scripts/infer_entries.py --tarball_path data/pretrain_dataset.tar --output_root data \
--name pretrain
Then, by its paths:   python scripts/group_entries.py --tarball_path data/pretrain_dataset.tar --output_root data \
--name pretrain
By a pattern:         add --pattern '([^/]+)/[^/]*$' (the folder a tile is in) or --pattern 'TCGA-..-....' (its patient)
By a table:           add --csv slides.csv --file_name filename --group_name slide
Or which site (hospital, scanner) every tile comes from, for evaluations: add --kind site --csv slides.csv \
--group_name hospital, which writes {name}_sites[_{suffix}].npy and {name}_site_names[_{suffix}].json.
Exit code: 0 done, 1 the index has no tile, 2 refused (nothing written).
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.cli import Parser, run_command


def main(argv: list[str] | None = None) -> int:
    """Run with command-line arguments; returns the exit code."""
    args = parse(argv)
    from dinov2.data.tar_index.group_files import GROUP_KINDS  # slow, so not before the flags are right
    from dinov2.data.tar_index.groups import GROUP_COLUMNS, GroupRequest, group_entries

    columns = replace(GROUP_COLUMNS, file=args.file_name, label=args.group_name or GROUP_KINDS[args.kind])
    request = GroupRequest(
        args.tarball_path, args.output_root, args.name, args.suffix, args.pattern, args.csv, columns, args.kind
    )
    report = group_entries(request)
    for warning in report.warnings:
        print(f"warning: {warning}", file=sys.stderr)
    print(report.line())
    return 0 if report.groups.size else 1


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The flags; those of scripts/infer_entries.py mean the same."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tarball_path", type=Path, required=True, help="the tar that was indexed")
    parser.add_argument("--output_root", type=Path, required=True, help="folder with its index files")
    parser.add_argument("--name", "--prefix", dest="name", help="prefix of the index files")
    parser.add_argument("--suffix", help="subset")
    parser.add_argument(
        "--kind", choices=("slide", "site"), default="slide", help="of the groups; a patient counts as slide"
    )
    rule = parser.add_mutually_exclusive_group()
    rule.add_argument(
        "--pattern",
        help="regular expression that finds the group in a member path: its first parentheses, else the whole match "
        "(default: the slide that the names and folders of tiles tell, see docs/evaluation.md)",
    )
    rule.add_argument("--csv", type=Path, help="csv file with the group of every tile")
    parser.add_argument("--file_name", default="filename", help="its column with base names or member paths")
    parser.add_argument("--group_name", help="its column with groups (default: group, or site for --kind site)")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run_command(main)
