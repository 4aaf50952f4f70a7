"""k nearest neighbours vote on the class of a tile.

Source: Wu et al. 2018, section 3.4; DINOv2's constants. A vote weighs softmax(cosine / temperature) over the largest
number of neighbours asked for. Or every neighbour has one vote, as in scikit-learn's KNeighborsClassifier.
Differs from the reference: k is cut to the number of query samples instead of failing; of equally similar neighbours
the first in the data set counts as the nearer one; cosines that differ by less than float32 shows are told apart.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from dinov2.distributed import get_device
from dinov2.utils.progress import Progress

from .features import Features
from .neighbours import nearest_neighbours

logger = logging.getLogger("dinov2")

ALL = -1  # in a list of query samples per class


@dataclass(frozen=True)
class KnnSettings:
    """How neighbours vote.

    Attributes:
        nb_knn: numbers of neighbours.
        temperature: of the softmax that weighs them.
        vote: "softmax", or "majority": one vote each; of classes with equally many the lowest number wins.
        n_per_class_list: query samples of each class, -1 for all.
        n_tries: random choices of so many samples.
    """

    nb_knn: Sequence[int] = (10, 20, 100, 200)
    temperature: float = 0.07
    vote: str = "softmax"
    n_per_class_list: Sequence[int] = (ALL,)
    n_tries: int = 1


class KnnCase(NamedTuple):
    """A number of query samples per class (-1: all), and of neighbours."""

    per_class: int
    k: int

    @property
    def title(self) -> str:
        """What results call it."""
        return f"{self.k}-NN" if self.per_class == ALL else f"{self.k}-NN, {self.per_class} per class"

    def __str__(self) -> str:
        return f"{self.k}" if self.per_class == ALL else f"{self.k}_{self.per_class}shot"


def knn_vote(
    query: Features,
    test: Tensor,
    *,
    nb_knn: Sequence[int],
    num_classes: int,
    temperature: float = 0.07,
    vote: str = "softmax",
    device: torch.device | None = None,
) -> dict[int, Tensor]:
    """Class scores of test samples from labelled query samples; all ranks take part.

    Args:
        query, test: features (n, D), (m, D) of any length, wherever they are kept.
        nb_knn: numbers of neighbours; those above n count as n.
        device: where features are compared; by default that of this process.
    Returns:
        For every k, scores (m, C) float32 in main memory: the votes of the k nearest, not rescaled to sum 1. They are
        equal to the last bit for any number of ranks.
    """
    largest = min(max(nb_knn), len(query.labels))
    too_large = [k for k in nb_knn if k > largest]
    if too_large:
        logger.warning(f"k = {too_large} is more than the {largest} query samples, which all vote instead")
    labels = query.labels.cpu()
    votes: dict[int, list[Tensor]] = {k: [] for k in nb_knn}
    with Progress("k-NN", len(test), quiet=True) as progress:
        for found in nearest_neighbours(query.values, test, largest, device=device or get_device(), progress=progress):
            # On a GPU the order of additions, and with it the last bits, would change from run to run.
            closeness, classes = found.closeness.cpu(), labels[found.row.cpu()]  # (t, K) each
            weights = vote_weights(closeness, temperature=temperature, vote=vote)
            for k in nb_knn:
                votes[k].append(count_votes(classes[:, :k], weights[:, :k], num_classes=num_classes))
    return {k: torch.cat(parts) for k, parts in votes.items()}


def vote_weights(closeness: Tensor, *, temperature: float, vote: str) -> Tensor:
    """What the votes of neighbours (t, K) weigh; nothing where there is no neighbour, at -inf."""
    exist = closeness > -torch.inf
    if vote == "majority":
        return exist.float()
    return torch.softmax(closeness / temperature, dim=1).where(exist, 0.0)  # NaN of a row without neighbours


def count_votes(classes: Tensor, weights: Tensor, *, num_classes: int) -> Tensor:
    """Class scores (t, C) from the classes (t, k) of neighbours and the weights of their votes."""
    return torch.zeros(len(weights), num_classes).scatter_add_(1, classes, weights)


def few_shot(query: Features, *, per_class: int, seed: int) -> Features:
    """A random choice of at most `per_class` query samples of each class: the one that DINOv2 makes for this seed."""
    generator = torch.Generator().manual_seed(seed)
    labels, chosen = query.labels.cpu(), []
    for label in labels.unique():
        (rows,) = torch.where(labels == label)
        chosen.append(rows[torch.randperm(len(rows), generator=generator)[:per_class]])
    return query.select(torch.cat(chosen).sort().values)


def knn_scores(
    query: Features, test: Tensor, settings: KnnSettings, *, num_classes: int, device: torch.device | None = None
) -> dict[KnnCase, list[Tensor]]:
    """What `knn_vote` gives for every case of the settings: scores (m, C) of each try, of which "all" has one."""
    results: dict[KnnCase, list[Tensor]] = {}
    for per_class in settings.n_per_class_list:
        tries = [query]
        ks = list(settings.nb_knn)
        if per_class != ALL:
            tries = [few_shot(query, per_class=per_class, seed=seed) for seed in range(settings.n_tries)]
            ks = [k for k in ks if k < per_class] + [per_class]
        for chosen in tries:
            votes = knn_vote(
                chosen,
                test,
                nb_knn=ks,
                num_classes=num_classes,
                temperature=settings.temperature,
                vote=settings.vote,
                device=device,
            )
            for k in ks:
                results.setdefault(KnnCase(per_class, k), []).append(votes[k])
    return results
