"""The command line of a training, and what of it is checked before torch is imported."""

import argparse
from pathlib import Path
from typing import NoReturn

from dinov2.errors import UserError
from dinov2.hub import check_known
from dinov2.utils.cli import run_checked
from dinov2.utils.dataset_strings import INPUT_FILES, check_places
from dinov2.utils.other_files import explain_file


def start() -> NoReturn:
    """Run the training command, whose module is imported when the arguments are checked."""
    run_checked(get_args_parser(), check_arguments, "dinov2.train.train")


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The options of the training command."""
    parser = argparse.ArgumentParser("DINOv2 training", add_help=add_help, allow_abbrev=False)
    parser.add_argument(
        "--config-file", default="", metavar="FILE", help="YAML file with settings that differ from the defaults"
    )
    parser.add_argument(
        "--output-dir", "--output_dir", default="output", metavar="DIR", help="folder of the run (default: output)"
    )
    parser.add_argument(
        "--input-dir",
        action="append",
        metavar="DIR",
        help="train on the images below this folder, or on those of an .h5 file or a .csv list; may be given again",
    )
    parser.add_argument(
        "--pretrained-weights",
        metavar="FILE|URL|NAME",
        help="weights of the backbone to start from; `python -m dinov2.hub list` has the names",
    )
    parser.add_argument("--no-resume", action="store_true", help="start over even if the run folder has checkpoints")
    parser.add_argument(
        "--allow-config-changes",
        action="store_true",
        help="go on from a checkpoint although settings that its numbers depend on have changed",
    )
    parser.add_argument("--eval-only", action="store_true", help="evaluate and export the newest checkpoint, then stop")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="settings, such as optim.epochs=10")
    return parser


def check_arguments(args: argparse.Namespace, *, files: bool = True) -> None:
    """Find what is wrong with settings, and files that are not there.

    Args:
        files: a job may see other ones than the machine that it is submitted from.
    Raises:
        UserError: for the first such thing.
    """
    from dinov2.utils.config import get_cfg_from_args  # OmegaConf takes as long as all before it

    cfg = get_cfg_from_args(args)
    if not files:
        return
    for path in args.input_dir or []:
        if not Path(path).exists():
            raise UserError(f"--input-dir {path} does not exist")
        if Path(path).is_file() and Path(path).suffix.lower() not in INPUT_FILES:
            raise UserError(f"--input-dir {explain_file(path)}")
    dataset = cfg.train.dataset_path
    for string in [dataset] if isinstance(dataset, str) else dataset or []:
        check_places(string)
    if cfg.student.pretrained_weights:
        check_known(cfg.student.pretrained_weights)
