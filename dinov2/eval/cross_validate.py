"""k-fold cross-validation of classifiers on a model's features: `python -m dinov2.eval.cross_validate ...`

The tiles of --train-dataset are split into folds, whole slides where these are known. Every classifier is trained on
all folds but one and scored on that one, and on all --test-datasets. Results are means and standard deviations over
folds, and intervals of the scores of all folds together.
"""

if __name__ == "__main__":
    from dinov2.eval.arguments import start

    start("cross_validate", __doc__)

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from .arguments import make_parser
from .cross_validation import CROSS_VALIDATION, FoldResults, cross_validate
from .features import Features
from .folds import Fold, check_folds, make_folds
from .labelled import LabelledSet, label_features
from .linear_heads import LinearSettings
from .logistic import LogisticSettings
from .probes import KnnProbe, LinearProbe, LogisticProbe, Probe
from .results import Row, scored_row, spread_row
from .setup import Evaluation, evaluation, named_tests
from .tokens import FeatureKind, grid_columns, widest_kind

POOLED = f"{CROSS_VALIDATION}, all folds together"


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The flags of the command."""
    return make_parser("cross_validate", __doc__, add_help=add_help)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    with evaluation("cross_validate", args) as job:
        sets = job.open_sets([("val", job.keys.data.test_dataset), *named_tests(args.test_datasets)])
        kind = widest_kind(args.n_last_blocks)
        folds, absent = _folds(args, sets[0])
        samples, *others = job.subject.features(sets, kind, how=job.extraction, file=args.features)
        external = {one.name: features for one, features in zip(sets[1:], others)}
        rows: list[Row] = []
        for name in args.probes:
            results = cross_validate(
                samples,
                make_probe(name, job, width=samples.values.shape[1]),
                folds,
                num_classes=len(sets[0].classes),
                device=job.device,
                external=external,
                title=f"{CROSS_VALIDATION} of {name}",
            )
            rows += _rows(name, results, samples, classes=sets[0].classes, resamples=args.resamples)
        job.finish(
            sets,
            rows,
            folds=args.n_folds,
            stratified=not args.plain,
            n_last_blocks=list(args.n_last_blocks),
            vote=args.vote,
            temperature=job.keys.knn.temperature,
            iterations=args.iterations,
            **absent,
        )
    return 0


def _folds(args: argparse.Namespace, labelled: LabelledSet) -> tuple[list[Fold], dict[str, Any]]:
    """The folds, and what classes some of them lack.

    They need labels and groups only, so that what is wrong with them is found before the model runs.
    """
    (samples,) = label_features([labelled], [torch.empty(len(labelled.labels), 0)])
    folds = make_folds(samples, count=args.n_folds, stratified=not args.plain, seed=args.seed)
    chooses = not {"linear", "log_regression"}.isdisjoint(args.probes)
    absent = check_folds(
        samples,
        folds,
        classes=labelled.classes,
        chooses=chooses,
        seed=args.seed,
        allow_missing_classes=args.allow_missing_classes,
    )
    return folds, {what: found for what, found in absent.items() if found}


def make_probe(name: str, job: Evaluation, *, width: int) -> Probe:
    """A classifier by its name, for features of the widest kind with `width` numbers."""
    widest = widest_kind(job.args.n_last_blocks)
    class_token = widest.columns(FeatureKind(), width // (widest.num_blocks + 1))
    if name == "linear":
        settings = LinearSettings(iterations=job.args.iterations, seed=job.args.seed)
        return LinearProbe(grid_columns(job.args.n_last_blocks, width), settings)
    if name == "log_regression":
        return LogisticProbe(LogisticSettings(seed=job.args.seed), columns=class_token)
    return KnnProbe(int(name.removesuffix("-NN")), job.keys.knn.temperature, job.args.vote, columns=class_token)


def _rows(
    name: str, results: Mapping[str, FoldResults], samples: Features, *, classes: Sequence[str], resamples: int
) -> list[Row]:
    """A classifier's results on all sets, and on the cross-validated tiles by the models that had not seen them."""
    rows = [spread_row(tested, name, found.metrics) for tested, found in results.items()]
    pooled = results[CROSS_VALIDATION].scores
    assert pooled is not None
    rows.insert(
        1,
        scored_row(POOLED, name, pooled, samples.labels, classes=classes, groups=samples.groups, resamples=resamples),
    )
    return rows
