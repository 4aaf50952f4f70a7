"""k-fold cross-validation of probes on features, and the folds' models on other test sets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dinov2.utils.progress import Progress

from .features import Features
from .folds import Fold
from .metrics import classification_metrics
from .probes import Probe

CROSS_VALIDATION = "cross-validation"  # the name of the set that the folds are of


@dataclass(frozen=True)
class FoldResults:
    """What the models of all folds say about one set.

    Attributes:
        metrics: of each fold, by name; see `classification_metrics`.
        scores: (n, C) of the cross-validated samples by the model that has not seen them; None for another set.
    """

    metrics: Sequence[Mapping[str, float]]
    scores: Tensor | None = None


def cross_validate(
    samples: Features,
    probe: Probe,
    folds: Sequence[Fold],
    *,
    num_classes: int,
    device: torch.device,
    external: Mapping[str, Features] | None = None,
    title: str = "",
) -> dict[str, FoldResults]:
    """Train a probe on each fold; all ranks take part.

    Args:
        external: other test sets by name, which every fold's model scores.
        title: what progress is reported as; empty: only where it takes long.
    Returns:
        Results by name of the set, the cross-validated samples first.
    """
    external = external or {}
    pooled = torch.zeros(len(samples.labels), num_classes, dtype=torch.float64)
    metrics: dict[str, list[dict[str, float]]] = {name: [] for name in (CROSS_VALIDATION, *external)}
    with Progress(title or CROSS_VALIDATION, len(folds), "folds", quiet=not title) as progress:
        for fold in folds:
            tested = {CROSS_VALIDATION: samples.select(fold.test), **external}
            sizes = [len(part.labels) for part in tested.values()]
            values = torch.cat([part.values for part in tested.values()])
            scores = probe(samples.select(fold.train), values, num_classes=num_classes, device=device)
            for (name, part), own in zip(tested.items(), scores.split(sizes)):
                metrics[name].append(classification_metrics(own, part.labels))
            pooled[fold.test] = scores[: sizes[0]].double()
            progress.add(1)
    results = {name: FoldResults(found) for name, found in metrics.items()}
    results[CROSS_VALIDATION] = FoldResults(metrics[CROSS_VALIDATION], pooled)
    return results
