"""What the `tune` section must satisfy: data sets that come in pairs, probes that there are, a score to watch."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from dinov2.errors import unknown_name

from .tune_scores import PROBES, trackable_scores

# Sets of which slides may be in both, as `tune.allow_overlap` calls them.
OVERLAPS = ("train_query", "train_test", "query_test")
NETWORKS = ("teacher", "student")
PAIR = ("query", "test")


def evaluates(tune: Any) -> bool:
    """Whether there is anything to evaluate on."""
    return bool(tune.query_dataset_path or tune.datasets)


def check_tuning(cfg: Any) -> Iterator[str]:
    """What is wrong with the section: the key, the value, and what would be right."""
    tune = cfg.tune
    yield from _check_data_sets(tune)
    yield from _check_probes(tune)
    yield from _check_overlaps(tune)
    yield from _check_tracking(tune)


def _check_data_sets(tune: Any) -> Iterator[str]:
    paths = (tune.query_dataset_path, tune.test_dataset_path)
    if any(paths) and not all(paths):
        yield "tune.query_dataset_path and tune.test_dataset_path belong together: give both or none"
    for name, pair in tune.datasets.items():
        key = f"tune.datasets.{name}"
        if not re.fullmatch(r"[\w-]+", str(name)) or name in NETWORKS:
            yield (
                f"{key}: expected a name of letters, digits, _ and -, not {' or '.join(NETWORKS)}, since its scores "
                "will be called NAME.teacher.bacc_20"
            )
        if not isinstance(pair, Mapping) or sorted(pair) != sorted(PAIR) or not all(pair.values()):
            yield f"{key}={pair}: expected two data set strings, {{query: STRING, test: STRING}}"
    if evaluates(tune) and tune.tile_size < tune.crop_size:
        yield f"tune.crop_size={tune.crop_size} does not fit into tune.tile_size={tune.tile_size}"


def _check_probes(tune: Any) -> Iterator[str]:
    for probe in tune.probes:
        if probe not in PROBES:
            yield str(unknown_name("tune.probes", probe, PROBES))
    if not tune.probes or len(set(tune.probes)) < len(tune.probes):
        yield f"tune.probes={list(tune.probes)}: expected one or more of {', '.join(PROBES)}, each once"
    for key, what, counts in (
        ("tune.knn.nb_knn", "numbers of neighbours", tune.knn.nb_knn),
        ("tune.linear.n_last_blocks", "numbers of blocks", tune.linear.n_last_blocks),
    ):
        if not counts:
            yield f"{key}=[]: expected {what}, 1 or more"
        if len(set(counts)) < len(counts):
            yield f"{key}={list(counts)}: expected {what}, each once"
    if not tune.knn.n_per_class_list or any(count < 1 and count != -1 for count in tune.knn.n_per_class_list):
        yield "tune.knn.n_per_class_list: expected numbers of query tiles per class, -1 for all"
    if len(set(tune.knn.n_per_class_list)) < len(tune.knn.n_per_class_list):
        yield f"tune.knn.n_per_class_list={list(tune.knn.n_per_class_list)}: expected each number once"


def _check_overlaps(tune: Any) -> Iterator[str]:
    known = [*OVERLAPS, *(f"{name}.{overlap}" for name in tune.datasets for overlap in OVERLAPS)]
    for allowed in tune.allow_overlap:
        if allowed not in known:
            yield str(unknown_name("tune.allow_overlap", str(allowed), known))


def _check_tracking(tune: Any) -> Iterator[str]:
    if not tune.early_stopping.enable:
        return
    if not evaluates(tune):
        yield "tune.early_stopping needs tune.query_dataset_path and tune.test_dataset_path, or tune.datasets"
        return
    tracking, known = tune.early_stopping.tracking, trackable_scores(tune)
    if tracking not in known:
        nearest = difflib.get_close_matches(tracking, known, n=3, cutoff=0.4) or known[:3]
        yield (
            f"tune.early_stopping.tracking={tracking}: there is no such score. Of the {len(known)} that this "
            f"configuration gives, the nearest are {', '.join(nearest)}"
        )
