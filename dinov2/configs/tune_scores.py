"""The scores that the `tune` section asks for, and how `tune.early_stopping.tracking` names one of them.

A score of a network has the full name `[{data set}.]{teacher|student}.{score}`. Early stopping watches the teacher, so
its `tracking` leaves that part out: `bacc_20`, `linear_auc`, `crc.bacc_20`.
"""

from collections.abc import Iterator
from typing import Any

PROBES = ("knn", "linear", "log_regression")
METRICS = ("acc", "bacc", "auc", "f1")
TEACHER = "teacher"


def full_name(tracking: str, network: str = TEACHER) -> str:
    """The full name of a score of a network."""
    data_set, _, score = tracking.rpartition(".")
    return ".".join(part for part in (data_set, network, score) if part)


def trackable_scores(tune: Any) -> list[str]:
    """What `tracking` can be, by the other keys of the section."""
    return [f"{prefix}{score}" for prefix in _prefixes(tune) for score in _scores(tune)]


def _prefixes(tune: Any) -> list[str]:
    """The fork's pair of data sets has no name."""
    return [""] * bool(tune.query_dataset_path) + [f"{name}." for name in tune.datasets]


def _scores(tune: Any) -> Iterator[str]:
    for probe in tune.probes:
        for metric in METRICS:
            if probe == "knn":
                yield from (f"{metric}_{case}" for case in _knn_cases(tune.knn))
            else:
                yield f"{probe}_{metric}"


def _knn_cases(knn: Any) -> Iterator[str]:
    """Numbers of neighbours; with few query tiles of a class no more than these, and as many."""
    for count in knn.n_per_class_list:
        if count == -1:
            yield from map(str, knn.nb_knn)
        else:
            yield from (f"{k}_{count}shot" for k in [*(k for k in knn.nb_knn if k < count), count])
