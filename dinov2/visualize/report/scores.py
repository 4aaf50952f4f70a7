"""The names of scores in results/tune.jsonl, and which of them is the best.

A name reads

    [{data set}.]{teacher|student}.[{probe}_]{metric}[_{k}][_{n}shot][_low|_high]

such as `teacher.bacc_20`, `crc.student.linear_auc_low` or `teacher.acc_10_5shot`. A number k without a probe is that of
the neighbours of k-NN; low and high bound a confidence interval of the name before them. A name without a network
is a score all the same.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from dinov2.configs.tune_scores import full_name

from .plots import EDGES
from .run_folder import Run

NETWORKS = ("teacher", "student")
USUAL_K = 20


@dataclass(frozen=True)
class ScoreName:
    """A name, taken apart; empty or None where a part is not there."""

    data_set: str
    network: str
    probe: str
    metric: str
    k: int | None = None
    shots: int | None = None
    edge: str = ""

    @property
    def group(self) -> tuple[str, str, str]:
        """What one panel is about: scores of both networks, of one number of neighbours."""
        return self.data_set, self.probe, self.metric

    @property
    def variant(self) -> str:
        """Neighbours and shots for people."""
        parts = [f"k = {self.k}"] if self.k is not None else []
        return ", ".join([*parts, f"{self.shots} per class"] if self.shots is not None else parts)


@dataclass(frozen=True)
class Best:
    """The best value of the score by which a run is judged."""

    name: str
    value: float
    iteration: int
    interval: tuple[float, float] | None
    is_tracked: bool  # whether it is the score that early stopping watches


def parse_name(name: str) -> ScoreName:
    """Take a name apart by the rule above."""
    *place, score = name.rsplit(".", 1)
    data_set, _, network = "".join(place).rpartition(".")
    if network not in NETWORKS:
        data_set, network = "".join(place), ""
    parts = score.split("_")
    edge = parts.pop() if len(parts) > 1 and f"_{parts[-1]}" in EDGES else ""
    shots = int(parts.pop()[: -len("shot")]) if len(parts) > 1 and re.fullmatch("[0-9]{1,9}shot", parts[-1]) else None
    k = int(parts.pop()) if len(parts) > 1 and re.fullmatch("[0-9]{1,9}", parts[-1]) else None
    probe = "_".join(parts[:-1]) or ("knn" if k is not None else "")
    return ScoreName(data_set, network, probe, parts[-1], k, shots, edge)


def score_names(names: Iterable[str]) -> list[str]:
    """The names that are scores and not the bounds of others, in their order."""
    known = dict.fromkeys(names)
    return [name for name in known if not (parse_name(name).edge and name.rpartition("_")[0] in known)]


def drawn_variants(names: Iterable[str], tracking: str) -> dict[tuple[str, str, str], list[str]]:
    """The names that one panel each shows, by group.

    Of several numbers of neighbours or shots it is the one that early stopping watches, or else k = 20 of all labelled
    tiles, or else the largest.
    """
    groups: dict[tuple[str, str, str], list[str]] = {}
    for name in names:
        groups.setdefault(parse_name(name).group, []).append(name)
    watched = parse_name(full_name(tracking))

    def rank(score: ScoreName) -> tuple[bool, bool, bool, int, int]:
        is_watched = (score.k, score.shots) == (watched.k, watched.shots)
        return is_watched, score.shots is None, score.k == USUAL_K, score.k or 0, score.shots or 0

    chosen = {}
    for group, members in groups.items():
        best = max(map(parse_name, members), key=rank)
        wanted = [replace(best, network=network) for network in (*NETWORKS, "")]
        chosen[group] = sorted((name for name in members if parse_name(name) in wanted), key=_network_order)
    return chosen


def best_score(run: Run) -> Best | None:
    """The best teacher: by the score that early stopping watches, or else by the first balanced accuracy drawn.

    The first of equal scores counts, as for early stopping itself.
    """
    name = _judge(run)
    if name is None:
        return None
    values = run.scores.values[name]
    sign = -1.0 if is_tracked(run, name) and run.settings.values.get("tune.early_stopping.min_max") == "min" else 1.0
    ranked = np.where(np.isfinite(values), sign * values, -np.inf)
    if not np.isfinite(ranked).any():
        return None
    row = int(ranked.argmax())
    low, high = (run.scores.values.get(f"{name}{edge}") for edge in EDGES)
    interval = None if low is None or high is None else (float(low[row]), float(high[row]))
    return Best(name, float(values[row]), int(run.scores.iterations[row]), interval, is_tracked(run, name))


def tracking_of(run: Run) -> str:
    """The score of the teacher that early stopping watches or would watch, such as auc_20 or crc.auc_20."""
    return str(run.settings.values.get("tune.early_stopping.tracking", ""))


def is_tracked(run: Run, name: str) -> bool:
    """Whether a name is the score that early stopping watches."""
    tracking = tracking_of(run)
    return bool(tracking) and name in (tracking, full_name(tracking))


def stopped_early(run: Run) -> bool:
    """Whether early stopping is on and its patience has run out, as `train.early_stopping.EarlyStopping` decides."""
    if not run.settings.values.get("tune.early_stopping.enable") or not len(run.scores):
        return False
    best, newest = best_score(run), int(run.scores.iterations[-1])
    improved = best.iteration if best is not None and best.is_tracked else 0
    patience, minimum = (run.timeline.get(f"early_stopping_{name}") for name in ("patience", "minimum"))
    return patience is not None and newest >= (minimum or 0) and newest - improved >= patience


def _judge(run: Run) -> str | None:
    names = score_names(run.scores.values)
    tracked = [name for name in names if is_tracked(run, name)]
    drawn = [name for group in drawn_variants(names, tracking_of(run)).values() for name in group]
    teacher = [name for name in drawn if parse_name(name).network == "teacher"]
    balanced = [name for name in teacher if parse_name(name).metric == "bacc"]
    return next(iter([*tracked, *balanced, *teacher]), None)


def _network_order(name: str) -> int:
    return [*NETWORKS, ""].index(parse_name(name).network)
