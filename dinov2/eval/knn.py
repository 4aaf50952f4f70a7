"""k nearest neighbours vote on the class of a tile, weighted by similarity.

Source: Wu et al. 2018, section 3.4; DINOv2's constants. A vote weighs softmax(cosine / temperature) over the
largest number of neighbours asked for.
Differs from the reference: k is cut to the number of query samples instead of failing.
"""

import logging
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from dinov2.utils.dtype import full_float32

from .features import Features, Rounds, extract_features, plain_rounds
from .metrics import classification_metrics

logger = logging.getLogger("dinov2")


def knn_vote(
    query: Features,
    test_features: Tensor,
    *,
    nb_knn: Sequence[int],
    temperature: float = 0.07,
    num_classes: int | None = None,
    batch_size: int = 1024,
) -> dict[int, Tensor]:
    """Class scores of test samples from labelled query samples.

    Args:
        query: unit features (n, D) with labels (n,).
        test_features: unit features (m, D).
        nb_knn: numbers of neighbours; those above n count as n.
        num_classes: C; one more than the largest query label by default.
        batch_size: test samples compared at a time.
    Returns:
        For every k of `nb_knn`, scores (m, C): the votes of the k nearest, not rescaled to sum 1.
    """
    num_classes = num_classes or int(query.labels.max()) + 1
    largest = min(max(nb_knn), len(query.labels))
    too_large = [k for k in nb_knn if k > largest]
    if too_large:
        logger.warning(f"k = {too_large} is more than the {largest} query samples, which all vote instead")
    votes: dict[int, list[Tensor]] = {k: [] for k in nb_knn}
    for chunk in test_features.split(batch_size):
        with full_float32():  # TF32 errs by 1e-3, which the temperature makes 1.5 % of a vote
            similarity, nearest = (chunk @ query.values.T).topk(largest, dim=1)  # (b, K) each
        weights = torch.softmax(similarity / temperature, dim=1)  # (b, K)
        labels = query.labels[nearest]  # (b, K)
        for k in nb_knn:
            scores = torch.zeros(len(chunk), num_classes, device=chunk.device)
            votes[k].append(scores.scatter_add_(1, labels[:, :k], weights[:, :k]))  # (b, C)
    return {k: torch.cat(parts) for k, parts in votes.items()}


def few_shot(query: Features, *, per_class: int, seed: int) -> Features:
    """A random choice of at most `per_class` query samples of each class."""
    generator = np.random.default_rng(seed)
    labels = query.labels.cpu().numpy()
    chosen = [generator.permutation(np.flatnonzero(labels == label))[:per_class] for label in np.unique(labels)]
    rows = torch.from_numpy(np.sort(np.concatenate(chosen))).to(query.labels.device)
    return Features(query.values[rows], query.labels[rows])


def evaluate_knn(
    query: Features,
    test: Features,
    *,
    nb_knn: Sequence[int],
    temperature: float = 0.07,
    n_per_class_list: Sequence[int] = (-1,),
    n_tries: int = 1,
) -> dict[str, float]:
    """Scores of the vote, by name: `{acc|bacc|auc}_{k}`, and `..._{k}_{n}shot` for few query samples.

    Args:
        query, test: features (n, D), (m, D) of any length; they are normalised here.
        n_per_class_list: query samples per class, -1 for all.
        n_tries: draws that few-shot scores are averaged over.
    """
    query = Features(F.normalize(query.values, dim=1), query.labels)
    test = Features(F.normalize(test.values, dim=1), test.labels)
    num_classes = int(max(query.labels.max(), test.labels.max())) + 1
    results: dict[str, float] = {}
    for per_class in n_per_class_list:
        tries = [query] if per_class < 0 else [few_shot(query, per_class=per_class, seed=s) for s in range(n_tries)]
        ks = list(nb_knn) if per_class < 0 else [k for k in nb_knn if k < per_class] + [per_class]
        suffix = "" if per_class < 0 else f"_{per_class}shot"
        scores = [
            knn_vote(chosen, test.values, nb_knn=ks, temperature=temperature, num_classes=num_classes)
            for chosen in tries
        ]
        for k in ks:
            metrics = [classification_metrics(votes[k], test.labels) for votes in scores]
            results.update({f"{name}_{k}{suffix}": float(np.mean([m[name] for m in metrics])) for name in metrics[0]})
    return results


def knn_of_model(
    model: Callable[[Tensor], Tensor],
    query_dataset: Dataset,
    test_dataset: Dataset,
    *,
    settings,
    device: torch.device,
    num_workers: int = 0,
    rounds: Rounds = plain_rounds,
) -> dict[str, float]:
    """Extract features of both data sets and score the vote, on all ranks.

    Args:
        model: images (B, C, H, W) -> features (B, D).
        settings: the `tune.knn` section of a configuration.
        rounds: see `extract_features`.
    """
    query, test = (
        extract_features(
            model,
            dataset,
            device=device,
            batch_size=settings.batch_size,
            num_workers=num_workers,
            gather_on_cpu=settings.gather_on_cpu,
            rounds=rounds,
        )
        for dataset in (query_dataset, test_dataset)
    )
    return evaluate_knn(
        query,
        test,
        nb_knn=list(settings.nb_knn),
        temperature=settings.temperature,
        n_per_class_list=list(settings.n_per_class_list),
        n_tries=settings.n_tries,
    )
