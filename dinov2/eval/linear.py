"""Linear evaluation of a model, DINOv2's way: `python -m dinov2.eval.linear ...`

Heads for several kinds of features and many learning rates are trained together on augmented images of
--train-dataset, or with --cached-features on features that are computed once. The best on --val-dataset is scored on
it and on --test-datasets. A run that was broken off goes on where it was saved.
"""

if __name__ == "__main__":
    from dinov2.eval.arguments import start

    start("linear", __doc__)

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import partial

from dinov2.distributed import get_global_size

from .arguments import make_parser
from .augmented import augmented_batches
from .choices import LINEAR_RESULTS, METRICS
from .features import Features
from .labelled import LabelledSet
from .linear_heads import LinearHeads, LinearSettings, LinearTraining, best_head
from .linear_probe import cached_batches
from .linear_run import LinearPlan, resume, train_and_score
from .results import Row, append_lines, scored_row
from .setup import Evaluation, evaluation, named_tests
from .tokens import FeatureKind, grid_columns, widest_kind

BATCH_SIZE = 128  # images of a process
AVERAGES = {"mean_accuracy": "micro", "mean_per_class_accuracy": "macro"}


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The flags of the command."""
    return make_parser("linear", __doc__, add_help=add_help)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    with evaluation("linear", args) as job:
        sets = job.open_sets([("val", job.keys.data.test_dataset), *named_tests(args.test_datasets)])
        settings = LinearSettings(
            learning_rates=tuple(args.learning_rates),
            batch_size=(args.batch_size or BATCH_SIZE) * get_global_size(),
            iterations=args.epochs * args.epoch_length,
            seed=args.seed,
        )
        kind = widest_kind(args.n_last_blocks)
        cached = args.cached_features or args.features is not None
        features = job.subject.features(sets if cached else sets[1:], kind, how=job.extraction, file=args.features)
        scored = features[1:] if cached else features
        columns = grid_columns(args.n_last_blocks, scored[0].values.shape[1])
        training = _training(job, columns, settings, num_classes=len(sets[0].classes))
        batches = (
            partial(cached_batches, features[0], settings, job.device) if cached else _augmented(job, sets[0], kind)
        )
        scores = train_and_score(training, batches, scored[0], plan=_plan(args), folder=job.folder)
        head = best_head(scores)
        rows = [_row(job, training.heads, head, *one) for one in zip(sets[1:], scored)]
        job.finish(
            sets,
            rows,
            cached_features=cached,
            scores_of_heads={name: score.value for name, score in scores.items()},
            **asdict(settings),
        )
        append_lines(job.folder / LINEAR_RESULTS, _dinov2_lines(sets[2:], rows[1:], args.test_metric_types))
    return 0


def _training(
    job: Evaluation, columns: Mapping[str, slice], settings: LinearSettings, *, num_classes: int
) -> LinearTraining:
    """Heads to be trained, as they were saved if they were."""
    heads = LinearHeads(columns, settings.scaled_rates, num_classes=num_classes, seed=settings.seed).to(job.device)
    training = LinearTraining(heads, settings)
    folder = None if job.args.no_resume else job.folder
    resume(training, folder, classifiers=job.args.classifier_fpath, device=job.device)
    return training


def _augmented(job: Evaluation, train: LabelledSet, kind: FeatureKind) -> Callable[[range], Iterable[Features]]:
    """The batches of some steps, of images that are drawn and cut anew."""
    dataset, network = train.with_transform(job.subject.train_transform()), job.subject.network(kind)

    def batches(steps: range) -> Iterable[Features]:
        return augmented_batches(
            dataset,
            network,
            labels=train.labels,
            batch_size=job.args.batch_size or BATCH_SIZE,
            steps=steps,
            device=job.device,
            num_workers=job.num_workers,
            seed=job.args.seed,
        )

    return batches


def _plan(args: argparse.Namespace) -> LinearPlan:
    return LinearPlan(
        total=args.epochs * args.epoch_length,
        score_every=args.eval_period_iterations,
        save_every=args.save_checkpoint_frequency * args.epoch_length,
        average=AVERAGES[args.val_metric_type],
    )


def _dinov2_lines(sets: Sequence[LabelledSet], rows: Sequence[Row], metric_types: Sequence[str]) -> list[str]:
    """DINOv2's results of the test sets: {"..._accuracy": 78.9}, in per cent."""
    types = list(metric_types) * (len(sets) if len(metric_types) == 1 else 1)
    return [
        json.dumps({f"{one.string}_accuracy": 100 * row.figures[METRICS[kind]].value})
        for one, row, kind in zip(sets, rows, types, strict=True)
    ]


def _row(job: Evaluation, heads: LinearHeads, head: str, labelled: LabelledSet, features: Features) -> Row:
    return scored_row(
        labelled.name,
        "linear",
        heads.model(head).scores(features.values),
        features.labels,
        classes=labelled.classes,
        groups=features.groups,
        resamples=job.args.resamples,
        notes={"head": head},
    )
