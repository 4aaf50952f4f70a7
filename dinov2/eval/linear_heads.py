"""Many linear classifiers trained together on the same batches of features.

Source: DINOv2's linear evaluation: heads for several kinds of features and several learning rates, SGD with momentum,
a cosine schedule; the best on validation samples is the result. The gradients of one head do not touch another, so
each becomes what it would be alone.
Differs from the reference: the heads of one kind of features are one matrix; names have as many decimals of the
learning rate as tell the heads apart, five at least.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov2.utils.rng import derive_seed

from .choices import LEARNING_RATES
from .features import Features
from .linear_model import PIECE, HeldOutScore, LinearModel
from .metrics import accuracy

# DINOv2's, for a batch of 256.


@dataclass(frozen=True)
class LinearSettings:
    """How heads are trained.

    Attributes:
        learning_rates: for a batch of 256; they grow in proportion to the batch.
        batch_size: samples in a step, of all ranks together.
        iterations: steps, over which the rates fall to 0.
        momentum: of SGD.
        held_out: share of the training samples that the head is chosen on where there are no others.
        seed: of weights, order and that choice.
    """

    learning_rates: Sequence[float] = LEARNING_RATES
    batch_size: int = 128
    iterations: int = 12500
    momentum: float = 0.9
    held_out: float = 0.1
    seed: int = 0

    @property
    def scaled_rates(self) -> list[float]:
        """The learning rates for this batch size."""
        return [rate * self.batch_size / 256 for rate in self.learning_rates]


class LinearHeads(nn.Module):
    """A linear layer for every kind of features and every learning rate.

    Attributes:
        inputs: columns of the features by the name of their kind.
        names: DINOv2's names of the L heads of every kind.
        weights, biases: (L * C, D) and (L * C,) by kind.
    """

    def __init__(
        self, inputs: Mapping[str, slice], learning_rates: Sequence[float], *, num_classes: int, seed: int = 0
    ) -> None:
        """Build heads with weights N(0, 0.01^2) and biases of 0.

        Args:
            inputs: columns of the features by the name of their kind, such as "1_blocks_avgpool_True".
            learning_rates: L, as scaled for the batch; they are part of the names.
        """
        super().__init__()
        self.inputs, self.num_classes = dict(inputs), num_classes
        decimals = _enough_decimals(learning_rates)
        self.names = {
            kind: [f"classifier_{kind}_lr_{rate:.{decimals}f}".replace(".", "_") for rate in learning_rates]
            for kind in inputs
        }
        rows, generator = len(learning_rates) * num_classes, torch.Generator().manual_seed(derive_seed(seed))
        self.weights, self.biases = nn.ParameterDict(), nn.ParameterDict()
        for kind, columns in inputs.items():
            self.weights[kind] = 0.01 * torch.randn(rows, columns.stop - columns.start, generator=generator)
            self.biases[kind] = torch.zeros(rows)

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Features (B, ...) -> logits (B, L, C) of the heads of every kind."""
        return {
            kind: F.linear(values[:, columns], self.weights[kind], self.biases[kind]).unflatten(
                1, (-1, self.num_classes)
            )
            for kind, columns in self.inputs.items()
        }

    @torch.no_grad()
    def scores(self, samples: Features, *, average: str = "micro") -> dict[str, HeldOutScore]:
        """How good every head is on samples: its accuracy, that of the mean class where `average` is "macro"."""
        device, labels = next(self.parameters()).device, samples.labels.cpu()
        predicted: dict[str, list[Tensor]] = {name: [] for names in self.names.values() for name in names}
        likelihood = dict.fromkeys(predicted, 0.0)
        for values, truth in zip(samples.values.split(PIECE), labels.split(PIECE)):
            for kind, logits in self(values.to(device)).items():  # (B, L, C)
                of_truth = F.cross_entropy(
                    logits.transpose(1, 2), _for_heads(truth.to(device), logits), reduction="none"
                )
                for name, classes, losses in zip(self.names[kind], logits.argmax(dim=2).T.cpu(), of_truth.T.cpu()):
                    predicted[name].append(classes)
                    likelihood[name] -= float(losses.double().sum())
        return {
            name: HeldOutScore(
                accuracy(torch.cat(parts), labels, self.num_classes, average=average), likelihood[name] / len(labels)
            )
            for name, parts in predicted.items()
        }

    def place(self, name: str) -> tuple[str, int]:
        """The kind of features of a head, and the number of its learning rate."""
        return next((kind, names.index(name)) for kind, names in self.names.items() if name in names)

    def model(self, name: str) -> LinearModel:
        """One head for itself."""
        kind, number = self.place(name)
        weight, bias = self._head(kind, number)
        return LinearModel(weight.detach().clone(), bias.detach().clone(), self.inputs[kind])

    def named_weights(self) -> dict[str, Tensor]:
        """All heads by the parameter names of DINOv2's checkpoints."""
        found = {}
        for kind, names in self.names.items():
            for number, name in enumerate(names):
                weight, bias = self._head(kind, number)
                found[f"classifiers_dict.{name}.linear.weight"] = weight.detach().clone()
                found[f"classifiers_dict.{name}.linear.bias"] = bias.detach().clone()
        return found

    @torch.no_grad()
    def load_named_weights(self, weights: Mapping[str, Tensor]) -> None:
        """Take what `named_weights` gives.

        Raises:
            ValueError: if there are other heads, or they are of other shapes.
        """
        own = self.named_weights()
        if set(own) != set(weights):
            raise ValueError(f"expected {len(own)} arrays like {next(iter(own))}, got {len(weights)} others")
        for kind, names in self.names.items():
            for number, name in enumerate(names):
                for part, tensor in zip(("weight", "bias"), self._head(kind, number)):
                    stored = weights[f"classifiers_dict.{name}.linear.{part}"]
                    if stored.shape != tensor.shape:
                        raise ValueError(f"{name}: expected shape {tuple(tensor.shape)}, got {tuple(stored.shape)}")
                    tensor.copy_(stored)

    def _head(self, kind: str, number: int) -> tuple[Tensor, Tensor]:
        """Weight (C, D) and bias (C,) of one head, as parts of those of all."""
        rows = slice(number * self.num_classes, (number + 1) * self.num_classes)
        return self.weights[kind][rows], self.biases[kind][rows]


class LinearTraining:
    """Heads and their optimiser: all that a checkpoint has to hold.

    The loss of a head is multiplied by its learning rate, and the optimiser has the rate 1 times a cosine: as heads
    share no parameter, and SGD without weight decay is linear in the gradients, that gives every head its own rate.
    """

    def __init__(self, heads: LinearHeads, settings: LinearSettings) -> None:
        """Prepare to train heads, which are where they are to be trained."""
        self.heads, self.total, self.iteration = heads, settings.iterations, 0  # steps in all, and done
        self.batch_size = settings.batch_size
        device = next(heads.parameters()).device
        self._rates = torch.tensor(settings.scaled_rates, device=device)  # (L,)
        self._optimizer = torch.optim.SGD(heads.parameters(), lr=1.0, momentum=settings.momentum)

    def run(self, batches: Iterable[Features], *, after: Callable[[], None] = lambda: None) -> None:
        """A step for each batch of B samples on the device of the heads; equal batches on all ranks.

        Args:
            after: called after every step.
        """
        for batch in batches:
            loss = torch.zeros((), device=self._rates.device)
            for logits in self.heads(batch.values).values():  # (B, L, C)
                losses = F.cross_entropy(logits.transpose(1, 2), _for_heads(batch.labels, logits), reduction="none")
                loss = loss + losses.mean(dim=0) @ self._rates  # losses (B, L)
            self._optimizer.zero_grad()
            loss.backward()
            self._optimizer.param_groups[0]["lr"] = (1 + math.cos(math.pi * self.iteration / self.total)) / 2
            self._optimizer.step()
            self.iteration += 1
            after()

    def state_dict(self) -> dict[str, Any]:
        """Heads, optimiser, and the number of the last step, counted from 0 as in DINOv2."""
        return {
            "model": self.heads.named_weights(),
            "optimizer": self._optimizer.state_dict(),
            "iteration": self.iteration - 1,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of `state_dict`."""
        self.load_heads(state)
        self._optimizer.load_state_dict(state["optimizer"])

    def load_heads(self, state: Mapping[str, Any]) -> None:
        """Take the heads of a state and go on after its last step, with the momentum that there is."""
        self.heads.load_named_weights(state["model"])
        self.iteration = state["iteration"] + 1


def best_head(scores: Mapping[str, HeldOutScore]) -> str:
    """The name of the head with the highest score, the first of several."""
    return max(scores, key=scores.__getitem__)


def _for_heads(labels: Tensor, logits: Tensor) -> Tensor:
    """Labels (B,) for logits (B, L, C) -> (B, L)."""
    return labels[:, None].expand(logits.shape[:2])


def _enough_decimals(rates: Sequence[float]) -> int:
    """Decimals that tell learning rates apart; five, as DINOv2 has, if they do."""
    return next(d for d in count(5) if d > 12 or len({f"{rate:.{d}f}" for rate in rates}) == len(set(rates)))
