"""`python -m dinov2.hub export`."""

import argparse
from pathlib import Path

from .request import KINDS, NETWORKS, Request, Stated


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of an export."""
    parser.add_argument(
        "--weights", required=True, metavar="W", help="a file, a checkpoint folder, a run's output folder, or a name"
    )
    parser.add_argument("--to", required=True, choices=KINDS, help="what shall load it")
    parser.add_argument("--output", required=True, type=Path, metavar="D", help="folder to make")
    parser.add_argument("--network", choices=NETWORKS, default="teacher", help="where there are both")
    parser.add_argument("--image-size", type=int, metavar="PIXELS", help="default: that of the stored positions")
    parser.add_argument("--num-heads", type=int, metavar="N", help="of attention, if the architecture is unusual")
    parser.add_argument("--offline", action="store_true", help="use no network, as DINOV2_OFFLINE=1")
    card = parser.add_argument_group("model card")
    card.add_argument("--run", type=Path, metavar="DIR", help="output folder of the training, if W does not lie in it")
    card.add_argument(
        "--results", type=Path, nargs="+", default=[], metavar="FILE", help="evaluation_*.json of these weights"
    )
    card.add_argument("--model-name", default="", metavar="TEXT", help="default: the name of the output folder")
    card.add_argument("--licence", default="", metavar="TEXT", help="of the weights")
    card.add_argument("--mpp", default="", metavar="X", help="micrometres per pixel of the training tiles")
    card.add_argument("--data", default="", metavar="TEXT", help="what the model was trained on")
    for name in ("mean", "std"):
        card.add_argument(f"--{name}", type=float, nargs=3, metavar=("R", "G", "B"), help="of the normalisation")


def run(args: argparse.Namespace) -> None:
    """Make the export, and say how closely it agrees.

    Raises:
        UserError: if it cannot be made, or does not compute what the model does.
    """
    # Imported here: listing and downloading weights need none of what the card reads.
    from .writing import export_weights

    stated = Stated(args.model_name, args.licence, args.mpp, args.data, mean=args.mean, std=args.std)
    request = Request(
        weights=args.weights,
        kind=args.to,
        output=args.output,
        network=args.network,
        run=args.run,
        results=tuple(args.results),
        image_size=args.image_size,
        num_heads=args.num_heads,
        offline=args.offline,
        stated=stated,
    )
    difference = export_weights(request)
    print(f"{args.output}: checked; class and patch tokens differ by at most {difference:.1e} of the largest number")
