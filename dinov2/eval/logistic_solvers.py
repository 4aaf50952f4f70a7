"""Two ways to minimise one objective: the mean cross-entropy plus |weights|^2 / (2 C n), biases being free.

For two classes the weights are those of a single logit, which is what scikit-learn regularises; for more, each class
has its own. Both solvers take values of C one after the other and start from the solution before.
"""

import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

logger = logging.getLogger("dinov2")

LINE_SEARCH_STEPS = 50


class Stop(NamedTuple):
    """When a solver ends: after so many steps of L-BFGS, or when no gradient is larger."""

    max_iter: int
    tol: float


def sklearn_path(values: Tensor, labels: Tensor, cs: Sequence[float], stop: Stop) -> Iterator[tuple[Tensor, Tensor]]:
    """Weights (K, D) and biases (K,) for every C.

    Args:
        values: (n, D) in main memory, of the dtype that is computed in.
        labels: (n,) int64, all of 0 .. K-1 occurring.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    features, targets = values.numpy(), labels.numpy()
    solver = LogisticRegression(tol=stop.tol, max_iter=stop.max_iter, warm_start=True)
    for c in cs:
        solver.C = c
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # reported below, in one line
            solver.fit(features, targets)
        _report(c, int(np.max(solver.n_iter_)), stop)
        yield _of_all_classes(torch.from_numpy(solver.coef_.copy()), torch.from_numpy(solver.intercept_.copy()))


def torch_path(values: Tensor, labels: Tensor, cs: Sequence[float], stop: Stop) -> Iterator[tuple[Tensor, Tensor]]:
    """As `sklearn_path`, where the values are."""
    labels = labels.to(values.device)
    count = int(labels.max()) + 1
    num_logits = 1 if count == 2 else count
    weight = values.new_zeros(num_logits, values.shape[1], requires_grad=True)
    bias = values.new_zeros(num_logits, requires_grad=True)
    for c in cs:
        solver = torch.optim.LBFGS(
            [weight, bias],
            max_iter=stop.max_iter,
            max_eval=stop.max_iter * LINE_SEARCH_STEPS,
            tolerance_grad=stop.tol,
            tolerance_change=64 * torch.finfo(values.dtype).eps,
            line_search_fn="strong_wolfe",
        )
        solver.step(_closure(values, labels, (weight, bias), c))
        _report(c, solver.state[weight]["n_iter"], stop)
        yield _of_all_classes(weight.detach().clone(), bias.detach().clone())


def _closure(values: Tensor, labels: Tensor, parameters: tuple[Tensor, Tensor], c: float) -> Callable[[], Tensor]:
    """What torch's L-BFGS calls: the objective, with its gradients in the parameters."""
    weight, bias = parameters

    def objective() -> Tensor:
        logits = F.linear(values, weight, bias)  # (n, K), or (n, 1) for two classes
        if logits.shape[1] == 1:
            loss = F.binary_cross_entropy_with_logits(logits[:, 0], labels.to(values.dtype))
        else:
            loss = F.cross_entropy(logits, labels)
        loss = loss + weight.square().sum() / (2 * c * len(values))
        weight.grad, bias.grad = torch.autograd.grad(loss, parameters)
        return loss.detach()

    return objective


def _of_all_classes(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """A single logit, of the second class, as two: the first one is 0."""
    if len(weight) > 1:
        return weight, bias
    return torch.cat((torch.zeros_like(weight), weight)), torch.cat((torch.zeros_like(bias), bias))


def _report(c: float, steps: int, stop: Stop) -> None:
    if steps >= stop.max_iter:
        logger.debug(f"logistic regression with C = {c:g} has not converged after {steps} steps")
