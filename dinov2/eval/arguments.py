"""The command lines of evaluations, and what of them is checked before torch is imported."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from dinov2.errors import Mistakes
from dinov2.hub import check_known
from dinov2.utils.cli import Parser, run_checked
from dinov2.utils.dataset_strings import check_places

from .choices import BACKENDS, CROP, DTYPES, GROUPINGS, LEARNING_RATES, LINEAR_RESULTS, METRICS, VOTES

RESIZE_OF_LOG_REGRESSION = 224  # pixels; DINOv2 resizes less here than for k-NN


def start(name: str, description: str | None) -> NoReturn:
    """Run `python -m dinov2.eval.{name}`, whose module is imported when the arguments are checked."""
    run_checked(make_parser(name, description), check_arguments, f"dinov2.eval.{name}")


def check_arguments(args: argparse.Namespace, *, files: bool = True) -> None:
    """Find what is wrong with settings, and files that are not there.

    Args:
        files: a job may see other ones than the machine that it is submitted from.
    Raises:
        UserError: with everything that is wrong.
    """
    from .settings import load_settings  # OmegaConf takes as long as all before it

    mistakes = Mistakes()
    cfg, keys = load_settings(args, mistakes)
    if cfg.student.pretrained_weights:
        with mistakes.collecting():
            check_known(cfg.student.pretrained_weights)
    if not keys.data.query_dataset:
        mistakes.add("there is nothing to learn from: name labelled tiles with --train-dataset")
    for string in _named_sets(args, keys) if files else []:
        with mistakes.collecting():
            check_places(string)
    mistakes.refuse()


def _named_sets(args: argparse.Namespace, keys: Any) -> list[str]:
    """All data sets that the settings of an evaluation name."""
    more = [*getattr(args, "test_datasets", []), getattr(args, "finetune_dataset_str", None)]
    return list(filter(None, (keys.data.query_dataset, keys.data.test_dataset, *more)))


def make_parser(name: str, description: str | None = None, *, add_help: bool = True) -> argparse.ArgumentParser:
    """The command line of `python -m dinov2.eval.{name}`."""
    parser = Parser(
        f"python -m dinov2.eval.{name}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=add_help,
    )
    model = parser.add_argument_group("model")
    model.add_argument("--config-file", default="", metavar="FILE", help="YAML file that describes the model")
    model.add_argument(
        "--pretrained-weights",
        metavar="FILE|URL|NAME",
        help="weights of the backbone, such as a teacher export; `python -m dinov2.hub list` has the names",
    )
    model.add_argument(
        "--hub-model", metavar="NAME", help="published model: its architecture, normalisation and weights, unless given"
    )
    model.add_argument("--untrained", action="store_true", help="evaluate random weights, to compare with")
    model.add_argument("--resize-size", type=int, metavar="PIXELS", help="shorter side that tiles are resized to")
    model.add_argument(
        "--crop-size", type=int, metavar="PIXELS", help=f"side of the centre cut out (default: the run's, or {CROP})"
    )
    data = parser.add_argument_group("data")
    data.add_argument("--train-dataset", metavar="STRING", help="labelled tiles to learn from")
    data.add_argument("--val-dataset", metavar="STRING", help="labelled tiles to be scored on")
    data.add_argument("--group-by", choices=GROUPINGS, default="auto", help="tiles that belong together")
    data.add_argument(
        "--allow-missing-classes",
        action="store_true",
        help="warn, instead of refusing, where a class that --train-dataset names has tiles in another set but none in "
        "--train-dataset: they count as misses",
    )
    data.add_argument("--features", type=Path, metavar="FILE", help=".npz or .safetensors that keeps the features")
    data.add_argument("--features-on-disk", action="store_true", help="for more features than fit into memory")
    data.add_argument("--gather-on-cpu", action="store_true", default=None, help="keep features in main memory")
    run = parser.add_argument_group("run")
    run.add_argument("--output-dir", "--output_dir", default="output", metavar="DIR", help="folder for the results")
    run.add_argument("--batch-size", type=int, metavar="N", help="images that a process runs together")
    run.add_argument("--num-workers", type=int, metavar="N", help="processes that decode, for each GPU")
    run.add_argument("--resamples", type=int, default=1000, metavar="N", help="of the bootstrap; 0: no intervals")
    run.add_argument("--seed", type=int, default=0, help="of what is drawn, and of untrained weights")
    run.add_argument("--opts", nargs="+", default=[], dest="more_opts", metavar="key=value", help="the same, as a flag")
    parser.add_argument("opts", nargs="*", metavar="key=value", help="settings, such as student.arch=vit_base")
    parser.set_defaults(evaluation=name)
    _ADD[name](parser)
    return parser


def _add_knn(parser: argparse.ArgumentParser) -> None:
    knn = parser.add_argument_group("vote")
    knn.add_argument("--nb_knn", type=int, nargs="+", metavar="K", help="numbers of neighbours")
    knn.add_argument("--temperature", type=float, help="of the softmax that weighs neighbours")
    knn.add_argument("--vote", choices=VOTES, default="softmax", help="majority: every neighbour has one vote")
    knn.add_argument("--n-per-class-list", type=int, nargs="+", metavar="N", help="query tiles per class; -1: all")
    knn.add_argument("--n-tries", type=int, metavar="N", help="random draws of so many tiles")
    knn.add_argument("--n-last-blocks", type=int, default=1, metavar="N", help="blocks whose class tokens are compared")
    knn.add_argument("--avgpool", action="store_true", help="compare the mean patch token too")


def _add_linear(parser: argparse.ArgumentParser) -> None:
    linear = parser.add_argument_group("heads")
    linear.add_argument("--test-datasets", nargs="+", default=[], metavar="STRING", help="more tiles to be scored on")
    linear.add_argument("--epochs", type=int, default=10, metavar="N", help="(default: 10)")
    linear.add_argument("--epoch-length", type=int, default=1250, metavar="N", help="steps of an epoch (default: 1250)")
    linear.add_argument("--save-checkpoint-frequency", type=int, default=1, metavar="N", help="epochs between savings")
    linear.add_argument("--eval-period-iterations", type=int, default=1250, metavar="N", help="steps between scores")
    linear.add_argument("--learning-rates", type=float, nargs="+", default=LEARNING_RATES, metavar="RATE")
    linear.add_argument("--n-last-blocks", type=int, nargs="+", default=(1, 4), metavar="N", help="(default: 1 4)")
    linear.add_argument(
        "--val-metric-type", choices=METRICS, default="mean_accuracy", help="what the best is chosen by"
    )
    linear.add_argument(
        "--test-metric-types",
        choices=METRICS,
        nargs="+",
        default=["mean_accuracy"],
        help=f"what {LINEAR_RESULTS} says of each of --test-datasets, one for all or one each; other files say all",
    )
    linear.add_argument("--classifier-fpath", metavar="FILE", help="heads to start from, such as a model_final.pth")
    linear.add_argument("--no-resume", action="store_true", help="start over even if there is a checkpoint")
    linear.add_argument("--cached-features", action="store_true", help="train on features of images as they are")


def _add_log_regression(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(usual_resize=RESIZE_OF_LOG_REGRESSION)
    fit = parser.add_argument_group("regression")
    fit.add_argument("--test-datasets", nargs="+", default=[], metavar="STRING", help="more tiles to be scored on")
    fit.add_argument("--finetune-dataset-str", metavar="STRING", help="labelled tiles to choose C on")
    fit.add_argument("--finetune-on-val", action="store_true", help="choose C on --val-dataset")
    fit.add_argument("--metric-type", choices=METRICS, default="mean_accuracy", help="what C is chosen by")
    fit.add_argument("--max-train-iters", type=int, default=1000, metavar="N", help="steps of L-BFGS for a value of C")
    fit.add_argument("--c-values", type=float, nargs="+", metavar="C", help="to choose from (default: DINOv2's 45)")
    fit.add_argument("--train-dtype", choices=DTYPES, default="float64", help="what is computed in")
    fit.add_argument("--train-features-device", choices=("cpu", "gpu"), default="cpu", help="where features are kept")
    fit.add_argument("--backend", choices=BACKENDS, default="auto", help="auto: torch on a GPU, else scikit-learn")
    fit.add_argument("--n-last-blocks", type=int, default=1, metavar="N", help="blocks whose class tokens are read")
    fit.add_argument("--avgpool", action="store_true", help="read the mean patch token too")


def _add_cross_validate(parser: argparse.ArgumentParser) -> None:
    cross = parser.add_argument_group("cross-validation")
    cross.add_argument("--test-datasets", nargs="+", default=[], metavar="STRING", help="more tiles to be scored on")
    cross.add_argument("--n-folds", type=int, default=5, metavar="N", help="number of folds (default: 5)")
    cross.add_argument("--plain", action="store_true", help="folds by chance, not with equal shares of the classes")
    cross.add_argument(
        "--probes",
        nargs="+",
        default=["1-NN", "20-NN", "linear"],
        metavar="PROBE",
        help="classifiers: K-NN for a number K, linear, log_regression",
    )
    cross.add_argument("--vote", choices=VOTES, default="softmax", help="of neighbours; majority: one vote each")
    cross.add_argument("--temperature", type=float, help="of the softmax that weighs neighbours")
    cross.add_argument(
        "--n-last-blocks", type=int, nargs="+", default=(1, 4), metavar="N", help="of linear classifiers"
    )
    cross.add_argument("--iterations", type=int, default=1000, metavar="N", help="steps of the linear classifiers")


_ADD = {
    "knn": _add_knn,
    "linear": _add_linear,
    "log_regression": _add_log_regression,
    "cross_validate": _add_cross_validate,
}
