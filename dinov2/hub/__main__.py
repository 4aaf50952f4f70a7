"""Weights on the command line.

python -m dinov2.hub list                 all that are known
python -m dinov2.hub show NAME            what is known about one of them
python -m dinov2.hub download NAME ...    fetch them for later; an https address will do as well
python -m dinov2.hub inspect FILE         what a file of weights has, and of which architecture it is
python -m dinov2.hub export ...           write a backbone for timm, transformers, ONNX, TorchScript or safetensors
"""

import argparse
import logging

from dinov2.utils.cli import Parser, run_command

from .commands import COMMANDS


def get_args_parser() -> argparse.ArgumentParser:
    """The options of all subcommands."""
    parser = Parser("python -m dinov2.hub", description=__doc__, allow_abbrev=False)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    subparsers = parser.add_subparsers(dest="command", required=True)
    for name, command in COMMANDS.items():
        command.add_arguments(subparsers.add_parser(name, help=command.summary, allow_abbrev=False))
    return parser


def main() -> None:
    """Run a subcommand."""
    logging.basicConfig(format="%(message)s")
    logging.getLogger("dinov2").setLevel(logging.INFO)  # of other libraries, warnings only
    args = get_args_parser().parse_args()
    COMMANDS[args.command].run(args)


if __name__ == "__main__":
    run_command(main)
