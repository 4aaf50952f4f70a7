"""Logistic regression on a model's features: `python -m dinov2.eval.log_regression ...`

C is chosen on held-out tiles: a share of --train-dataset, --finetune-dataset-str, or with --finetune-on-val the tiles
of --val-dataset, whose score is then too good. The model is fitted again on training and held-out tiles together, and
scored on --val-dataset and --test-datasets.
"""

import argparse
from dataclasses import asdict, replace

from dinov2.errors import UserError
from dinov2.utils.cli import run_command

from .features import Features
from .logistic import BACKENDS, C_VALUES, DTYPES, LogisticSettings, fit_logistic
from .results import scored_row
from .setup import base_parser, evaluation, named_tests
from .tokens import FeatureKind

RESIZE = 224  # pixels; DINOv2 resizes less here than for k-NN
METRICS = {"mean_accuracy": "acc", "mean_per_class_accuracy": "bacc"}


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The flags of the command."""
    parser = base_parser("log_regression", __doc__, add_help=add_help)
    parser.set_defaults(resize_size=RESIZE)
    fit = parser.add_argument_group("regression")
    fit.add_argument("--test-datasets", nargs="+", default=[], metavar="STRING", help="more tiles to be scored on")
    fit.add_argument("--finetune-dataset-str", metavar="STRING", help="labelled tiles to choose C on")
    fit.add_argument("--finetune-on-val", action="store_true", help="choose C on --val-dataset")
    fit.add_argument("--metric-type", choices=METRICS, default="mean_accuracy", help="what C is chosen by")
    fit.add_argument("--max-train-iters", type=int, default=1000, metavar="N", help="steps of L-BFGS for a value of C")
    fit.add_argument("--c-values", type=float, nargs="+", default=C_VALUES, metavar="C", help="to choose from")
    fit.add_argument("--train-dtype", choices=DTYPES, default="float64", help="what is computed in")
    fit.add_argument("--train-features-device", choices=("cpu", "gpu"), default="cpu", help="where features are kept")
    fit.add_argument("--backend", choices=BACKENDS, default="auto", help="auto: torch on a GPU, else scikit-learn")
    fit.add_argument("--n-last-blocks", type=int, default=1, metavar="N", help="blocks whose class tokens are read")
    fit.add_argument("--avgpool", action="store_true", help="read the mean patch token too")
    return parser


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    with evaluation("log_regression", args) as job:
        tested = [("val", job.keys.data.test_dataset), *named_tests(args.test_datasets)]
        sets = job.open_sets([("finetune", args.finetune_dataset_str), *tested])
        scored = [one for one in sets if one.name not in ("train", "finetune")]
        _check(args, [one.name for one in scored])
        kind = FeatureKind(args.n_last_blocks, args.avgpool)
        how = replace(job.extraction, on_cpu=job.extraction.on_cpu or args.train_features_device == "cpu")
        features = job.subject.features(sets, kind, how=how, file=args.features)
        by_name: dict[str, Features] = {one.name: part for one, part in zip(sets, features)}
        settings = LogisticSettings(
            cs=sorted(args.c_values),
            max_iter=args.max_train_iters,
            backend=args.backend,
            dtype=args.train_dtype,
            metric=METRICS[args.metric_type],
            seed=args.seed,
        )
        fit = fit_logistic(
            by_name["train"],
            num_classes=len(sets[0].classes),
            device=job.device,
            settings=settings,
            held_out=by_name["val"] if args.finetune_on_val else by_name.get("finetune"),
            refit_on_both=not args.finetune_on_val,
        )
        rows = [
            scored_row(
                one.name,
                "logistic regression",
                fit.model.scores(by_name[one.name].values),
                one.labels,
                classes=one.classes,
                groups=by_name[one.name].groups,
                resamples=args.resamples,
                notes={"best_C": fit.best_c},
            )
            for one in scored
        ]
        job.finish(
            sets,
            rows,
            tokens=str(kind),
            scores_of_C={f"{c:g}": score.value for c, score in fit.scores.items()},
            **asdict(settings),
        )
    return 0


def _check(args: argparse.Namespace, scored: list[str]) -> None:
    if not scored:
        raise UserError("there is nothing to be scored on: name labelled tiles with --val-dataset or --test-datasets")
    if args.finetune_on_val and (args.finetune_dataset_str or "val" not in scored):
        raise UserError(
            "--finetune-on-val chooses C on the tiles of --val-dataset: give those, and nothing else to choose on"
        )
    if min(args.c_values) <= 0:
        raise UserError(f"--c-values {' '.join(map(str, args.c_values))}: expected numbers above 0")


if __name__ == "__main__":
    run_command(lambda: main(get_args_parser().parse_intermixed_args()))
