"""The figure of evaluations during training."""

from collections.abc import Sequence
from operator import attrgetter

from .plots import Line, Mark, Panel, Plot, make_curves
from .run_folder import Run
from .scores import NETWORKS, Best, ScoreName, best_score, drawn_variants, parse_name, score_names, tracking_of

# Metric: name for people, factor, unit; in the order of the panels.
METRICS = {
    "bacc": ("balanced accuracy", 100.0, "%"),
    "acc": ("accuracy", 100.0, "%"),
    "f1": ("F1 score", 100.0, "%"),
    "auc": ("AUROC", 1.0, ""),
}
PROBES = {"knn": "k-NN", "linear": "linear probe", "log_regression": "logistic regression"}
_CAPTION = "Shaded: confidence intervals, where they were computed. Star: the best value of {judge}."


def score_plot(runs: Sequence[Run]) -> Plot:
    """Scores over the training: a panel for every data set, probe and metric."""
    names = score_names(dict.fromkeys(name for run in runs for name in run.scores.values))
    groups = drawn_variants(names, tracking_of(runs[0]))
    bests = [best_score(run) for run in runs]
    panels = [_panel(runs, groups[group], bests) for group in sorted(groups, key=_group_order)]
    is_tracked = any(best.is_tracked for best in bests if best is not None)
    judge = "the score that early stopping watches" if is_tracked else "a score of the teacher"
    metrics = len({metric for _, _, metric in groups})
    rows_are_probes = metrics in (2, 3) and len(panels) % metrics == 0
    return Plot("scores", "Scores", _CAPTION.format(judge=judge), panels, metrics if rows_are_probes else None)


def readable(name: str) -> str:
    """A score's name for people, such as "k-NN balanced accuracy, k = 20, teacher, crc"."""
    score = parse_name(name)
    what = f"{_probe(score)} {METRICS.get(score.metric, (score.metric,))[0]}".strip()
    return ", ".join(part for part in (what, score.variant, score.network, score.data_set, score.edge) if part)


def shown_value(name: str, value: float) -> str:
    """A score with its unit."""
    _, factor, unit = METRICS.get(parse_name(name).metric, ("", 1.0, ""))
    return f"{value * factor:.1f} {unit}" if unit else f"{value:.3f}"


def _panel(runs: Sequence[Run], names: Sequence[str], bests: Sequence[Best | None]) -> Panel:
    score = parse_name(names[0])
    metric, factor, unit = METRICS.get(score.metric, (score.metric, 1.0, ""))
    title = ", ".join(part for part in (_probe(score), score.variant, score.data_set) if part)
    networks = [parse_name(name).network for name in names]
    lines = [Line(name, network, NETWORKS.index(network or NETWORKS[0])) for name, network in zip(names, networks)]
    curves = make_curves(runs, lines, source=attrgetter("scores"), scale=factor, markers=True)
    marks = [
        _star(best, factor, number if len(runs) > 1 else None)
        for number, best in enumerate(bests)
        if best is not None and best.name in names
    ]
    return Panel(title or metric, f"{metric} [{unit}]" if unit else metric, curves, marks=marks)


def _star(best: Best, factor: float, colour: int | None) -> Mark:
    return Mark(best.iteration, f"best: {shown_value(best.name, best.value)}", colour, best.value * factor)


def _probe(score: ScoreName) -> str:
    return PROBES.get(score.probe, score.probe)


def _group_order(group: tuple[str, str, str]) -> tuple[str, str, int, str]:
    data_set, probe, metric = group
    known = list(METRICS)
    return data_set, probe, known.index(metric) if metric in known else len(known), metric
