"""k-NN evaluation of a model: `python -m dinov2.eval.knn --config-file ... --pretrained-weights ... ...`

Labelled query tiles (--train-dataset) vote on the class of test tiles (--val-dataset), DINOv2's way by default:

    python -m dinov2.eval.knn --config-file runs/a/config.yaml \\
        --pretrained-weights runs/a/eval/training_9999/teacher_checkpoint.pth --output-dir runs/a/knn \\
        --train-dataset KNN:root=tarballs:extra=tarballs:split=query \\
        --val-dataset KNN:root=tarballs:extra=tarballs:split=test
"""

if __name__ == "__main__":
    from dinov2.eval.arguments import start

    start("knn", __doc__)

import argparse
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict

from torch import Tensor

from .arguments import make_parser
from .features import Features
from .knn_votes import ALL, KnnCase, KnnSettings, knn_scores
from .metrics import classification_metrics
from .results import Row, append_lines, scored_row, spread_row
from .setup import evaluation
from .site_robustness import site_robustness
from .tokens import FeatureKind

DINOV2_FILE = "results_eval_knn.json"
_DINOV2_METRICS = {"acc": "Top 1", "top5": "Top 5"}


def get_args_parser(add_help: bool = True) -> argparse.ArgumentParser:
    """The flags of the command."""
    return make_parser("knn", __doc__, add_help=add_help)


def main(args: argparse.Namespace) -> int:
    """Run the command."""
    with evaluation("knn", args) as job:
        sets = job.open_sets([("val", job.keys.data.test_dataset)])
        kind = FeatureKind(args.n_last_blocks, args.avgpool)
        train, val = job.subject.features(sets, kind, how=job.extraction, file=args.features)
        keys = job.keys.knn
        settings = KnnSettings(keys.nb_knn, keys.temperature, args.vote, keys.n_per_class_list, keys.n_tries)
        scores = knn_scores(train, val.values, settings, num_classes=len(sets[0].classes))
        about_sites = _about_sites(train, val, settings)
        rows = []
        for case, tries in scores.items():
            row = _row(case, tries, val, classes=sets[0].classes, resamples=args.resamples)
            rows.append(row.with_figures(about_sites.get(case, {})))
        job.finish(sets, rows, tokens=str(kind), **asdict(settings))
        append_lines(job.folder / DINOV2_FILE, _dinov2_lines(scores, rows))
    return 0


def _row(case: KnnCase, tries: Sequence[Tensor], val: Features, *, classes: Sequence[str], resamples: int) -> Row:
    """A case's results: with intervals, or with the deviation of several tries."""
    notes = {"k": case.k, "n_per_class": None if case.per_class == ALL else case.per_class}
    if len(tries) > 1:
        metrics = [classification_metrics(scores, val.labels) for scores in tries]
        return spread_row("val", case.title, metrics, notes=notes)
    return scored_row(
        "val",
        case.title,
        tries[0],
        val.labels,
        classes=classes,
        groups=val.groups,
        resamples=resamples,
        notes=notes,
    )


def _about_sites(train: Features, val: Features, settings: KnnSettings) -> dict[KnnCase, dict[str, float]]:
    """The figures of `site_robustness`, for the cases in which all query tiles vote; none if sites are not known."""
    if train.sites is None or val.sites is None or ALL not in settings.n_per_class_list:
        return {}
    found = site_robustness(train, val, settings)
    return {KnnCase(ALL, k): {f"site_{name}": value for name, value in asdict(one).items()} for k, one in found.items()}


def _dinov2_lines(cases: Iterable[KnnCase], rows: Sequence[Row]) -> list[str]:
    """DINOv2's results: {"('full', 10) Top 1": 78.9}, in per cent."""
    lines = []
    for case, row in zip(cases, rows):
        key = ("full" if case.per_class == ALL else case.per_class, case.k)
        for metric, title in _DINOV2_METRICS.items():
            if metric in row.figures:
                lines.append(json.dumps({f"{key} {title}": 100 * row.figures[metric].value}))
    return lines
