"""Logistic regression on features: the convex probe, whose strength of regularisation C is swept.

The objective is scikit-learn's: C times the sum of cross-entropies plus half the squared weights, the bias being free;
for two classes the weights of a single logit. On a CPU scikit-learn minimises it, on a GPU torch's L-BFGS does, both in
float64 unless told otherwise. DINOv2 uses cuML for the same.

Each C starts from the solution for the next smaller one. To be the same for any number of ranks, the sweep is cut
into runs of values that start from zero, and ranks share the runs.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from dinov2.distributed import all_gather_object, get_global_rank, get_global_size
from dinov2.errors import UserError
from dinov2.utils.progress import Progress

from .features import Features
from .folds import hold_out
from .linear_model import HeldOutScore, LinearModel
from .logistic_solvers import Stop, sklearn_path, torch_path
from .metrics import classification_metrics

C_VALUES = tuple(10 ** np.linspace(-6, 5, 45))  # DINOv2's
RUN = 9  # values of C that one rank goes through


@dataclass(frozen=True)
class LogisticSettings:
    """How the regression is fitted.

    Attributes:
        cs: values of C to choose from, ascending.
        max_iter: steps of L-BFGS for one of them.
        tol: largest gradient of the mean objective at which it ends.
        backend: "sklearn", "torch", or "auto": torch on a GPU.
        dtype: one of `DTYPES`, which is computed in.
        metric: of `classification_metrics`, that C is chosen by; among equally good ones the cross-entropy decides.
        held_out: share of the training samples that C is chosen on where there are no others.
        seed: of that choice of samples.
    """

    cs: Sequence[float] = C_VALUES
    max_iter: int = 1000
    tol: float = 1e-5
    backend: str = "auto"
    dtype: str = "float64"
    metric: str = "acc"
    held_out: float = 0.1
    seed: int = 0


class LogisticFit(NamedTuple):
    """A fitted model, the C chosen for it, and the score of every C on the held-out samples."""

    model: LinearModel
    best_c: float
    scores: dict[float, HeldOutScore]

    @property
    def end_of_grid(self) -> str:
        """ "largest" or "smallest" where no larger or smaller C was tried than the best; else empty."""
        ends = {max(self.scores): "largest", min(self.scores): "smallest"}
        return ends.get(self.best_c, "") if len(self.scores) > 1 else ""


def fit_logistic(
    train: Features,
    *,
    num_classes: int,
    device: torch.device,
    settings: LogisticSettings = LogisticSettings(),
    held_out: Features | None = None,
    refit_on_both: bool = True,
) -> LogisticFit:
    """Choose C on held-out samples and fit with it; all ranks take part.

    Args:
        held_out: to choose on; without them a share of the training samples.
        refit_on_both: fit in the end on training and held-out samples.
    """
    if held_out is None:
        split = hold_out(train, share=settings.held_out, seed=settings.seed)
        train, held_out = train.select(split.train), train.select(split.test)
    scores = sweep(train, held_out, num_classes=num_classes, device=device, settings=settings)
    best_c = max(scores, key=scores.__getitem__)
    if refit_on_both:
        train = Features(torch.cat((train.values, held_out.values)), torch.cat((train.labels, held_out.labels)))
    (model,) = fit_path(train, [best_c], num_classes=num_classes, device=device, settings=settings)
    return LogisticFit(model, best_c, scores)


def sweep(
    train: Features, held_out: Features, *, num_classes: int, device: torch.device, settings: LogisticSettings
) -> dict[float, HeldOutScore]:
    """Score of every C on held-out samples, in ascending order; all ranks take part."""
    cs = sorted(settings.cs)
    runs = [cs[first : first + RUN] for first in range(0, len(cs), RUN)]
    mine: dict[float, HeldOutScore] = {}
    own = runs[get_global_rank() :: get_global_size()]
    with Progress("logistic regression", sum(map(len, own)), "values of C", quiet=True) as progress:
        for run in own:
            models = fit_path(train, run, num_classes=num_classes, device=device, settings=settings)
            for c, model in zip(run, models):
                mine[c] = _score(model, held_out, settings.metric)
                progress.add(1)
    scores = {c: score for part in all_gather_object(mine) for c, score in part.items()}
    return dict(sorted(scores.items()))


def _score(model: LinearModel, held_out: Features, metric: str) -> HeldOutScore:
    probabilities, labels = model.scores(held_out.values), held_out.labels.cpu()
    of_labels = probabilities.gather(1, labels[:, None]).double().clamp_min(1e-300)  # a class may be unknown
    value = classification_metrics(probabilities, labels)[metric]
    return HeldOutScore(value, float(of_labels.log().mean()))


def fit_path(
    train: Features, cs: Sequence[float], *, num_classes: int, device: torch.device, settings: LogisticSettings
) -> Iterator[LinearModel]:
    """Models for ascending values of C, each starting from the one before.

    Raises:
        UserError: if there is only one class to train on.
    """
    present, labels = train.labels.cpu().unique(return_inverse=True)
    if len(present) < 2:
        raise UserError(f"{len(labels):,} samples to train on are all of one class; nothing can be learnt from them")
    by_torch = settings.backend == "torch" or (settings.backend == "auto" and device.type == "cuda")
    solver = torch_path if by_torch else sklearn_path
    stop = Stop(settings.max_iter, settings.tol)
    values = train.values.to(device if by_torch else "cpu", getattr(torch, settings.dtype))
    for weight, bias in solver(values, labels, cs, stop):
        all_weights = weight.new_zeros(num_classes, weight.shape[1])
        all_biases = bias.new_full((num_classes,), -float("inf"))
        all_weights[present], all_biases[present] = weight, bias
        yield LinearModel(all_weights, all_biases)
