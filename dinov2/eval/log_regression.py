"""Logistic regression on a model's features: `python -m dinov2.eval.log_regression ...`

C is chosen on held-out tiles: a share of --train-dataset, --finetune-dataset-str, or with --finetune-on-val the tiles
of --val-dataset, whose score is then too good. The model is fitted again on training and held-out tiles together, and
scored on --val-dataset and --test-datasets.
"""

if __name__ == "__main__":
    from dinov2.eval.arguments import start

    start("log_regression", __doc__)

import argparse
import logging
from dataclasses import asdict, replace

from .arguments import make_parser
from .choices import METRICS
from .features import Features
from .logistic import C_VALUES, LogisticSettings, fit_logistic
from .results import scored_row
from .setup import evaluation, named_tests
from .tokens import FeatureKind

logger = logging.getLogger("dinov2")


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The flags of the command."""
    return make_parser("log_regression", __doc__, add_help=add_help)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    with evaluation("log_regression", args) as job:
        tested = [("val", job.keys.data.test_dataset), *named_tests(args.test_datasets)]
        sets = job.open_sets([("finetune", args.finetune_dataset_str), *tested])
        scored = [one for one in sets if one.name not in ("train", "finetune")]
        kind = FeatureKind(args.n_last_blocks, args.avgpool)
        how = replace(job.extraction, on_cpu=job.extraction.on_cpu or args.train_features_device == "cpu")
        features = job.subject.features(sets, kind, how=how, file=args.features)
        by_name: dict[str, Features] = {one.name: part for one, part in zip(sets, features)}
        settings = LogisticSettings(
            cs=sorted(args.c_values or C_VALUES),
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
        if fit.end_of_grid:
            step = 10.0 if fit.end_of_grid == "largest" else 0.1
            logger.warning(
                f"C = {fit.best_c:g} scores best and is the {fit.end_of_grid} one tried: others may be better. "
                f"To try them: --c-values {' '.join(f'{fit.best_c * step**power:g}' for power in range(4))}"
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
            end_of_grid=fit.end_of_grid or None,
            scores_of_C={f"{c:g}": score.value for c, score in fit.scores.items()},
            **asdict(settings),
        )
    return 0
