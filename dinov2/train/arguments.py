"""The command line of a training, and what of it is checked before torch is imported."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from dinov2.errors import Mistakes, unknown_name
from dinov2.hub import check_known
from dinov2.utils.cli import Parser, run_checked
from dinov2.utils.dataset_strings import INPUT_FILES, check_places
from dinov2.utils.other_files import explain_file

# Those of models/vision_transformer.py, which takes seconds to import.
BACKBONES = ("vit_tiny", "vit_small", "vit_base", "vit_large", "vit_giant2")


def start() -> NoReturn:
    """Run the training command, whose module is imported when the arguments are checked."""
    run_checked(get_args_parser(), check_arguments, "dinov2.train.train")


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The options of the training command."""
    parser = Parser("DINOv2 training", add_help=add_help, allow_abbrev=False)
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
        UserError: with everything that is wrong.
    """
    from dinov2.utils.config import get_cfg_from_args  # OmegaConf takes as long as all before it

    checks = (lambda cfg: _check_places(cfg, args.input_dir or []), _check_weights)
    get_cfg_from_args(args, checks=(_check_backbone, *(checks if files else ())))


def dataset_strings(cfg: Any) -> list[str]:
    """All data sets that a configuration names."""
    paths = cfg.train.dataset_path
    strings = [paths] if isinstance(paths, str) else list(paths or [])
    strings += [cfg.tune.query_dataset_path, cfg.tune.test_dataset_path]
    strings += [string for pair in cfg.tune.datasets.values() for string in pair.values()]
    return list(filter(None, strings))


def _check_backbone(cfg: Any) -> None:
    models = sys.modules.get("dinov2.models.vision_transformer")
    known = models.ARCHITECTURES if models else BACKBONES  # more may have been registered
    if cfg.student.arch.removesuffix("_memeff") not in known:
        raise unknown_name("student.arch", cfg.student.arch, known)


def _check_places(cfg: Any, inputs: Sequence[str]) -> None:
    mistakes = Mistakes()
    for path in inputs:
        if not Path(path).exists():
            mistakes.add(f"--input-dir {path} does not exist")
        elif Path(path).is_file() and Path(path).suffix.lower() not in INPUT_FILES:
            mistakes.add(f"--input-dir {explain_file(path)}")
    mistakes.refuse()
    for string in dataset_strings(cfg):
        with mistakes.collecting():
            check_places(string)
    mistakes.refuse()


def _check_weights(cfg: Any) -> None:
    if cfg.student.pretrained_weights:
        check_known(cfg.student.pretrained_weights)
