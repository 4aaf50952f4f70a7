"""Join the checkpoint that the ranks of a sharded DINOv2 run have written into one file, without running its code.

    python scripts/convert_dinov2_shards.py --config-file RUN/config.yaml --output whole.pth \\
        RUN/model_0124999.rank_*.pth

The result has student and teacher with their heads, and loads wherever weights are named: --pretrained-weights,
torch.hub's `weights`, `python -m dinov2.hub inspect`.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dinov2.utils.atomic import atomic_path
from dinov2.utils.cli import Parser, run_command
from dinov2.utils.outputs import try_file


def get_args_parser() -> argparse.ArgumentParser:
    """The options of this script."""
    parser = Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False)
    parser.add_argument("shards", nargs="+", type=Path, metavar="FILE", help="the parts of all ranks")
    parser.add_argument("--config-file", required=True, metavar="FILE", help="config.yaml of the run")
    parser.add_argument("--output", required=True, type=Path, metavar="FILE", help="file to be written")
    return parser


def main() -> None:
    """Join and write."""
    args = get_args_parser().parse_args()
    try_file(args.output)
    import torch  # slow, so not before the flags are right

    from dinov2.configs import load_config_file, merge_layers
    from dinov2.models.weights.shards import join_shards
    from dinov2.train.ssl_meta_arch import SSLMetaArch

    cfg = merge_layers([(args.config_file, load_config_file(args.config_file))])
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in SSLMetaArch(cfg).state_dict().items()}
    whole = join_shards(args.shards, shapes)
    with atomic_path(args.output) as temporary:
        torch.save({"model": whole}, temporary)
    print(f"wrote {len(whole)} tensors of {len(args.shards)} ranks to {args.output}")


if __name__ == "__main__":
    run_command(main)
