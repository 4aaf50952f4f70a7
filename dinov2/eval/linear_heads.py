"""Many linear classifiers trained together on the same batches of features.

Source: DINOv2's linear evaluation: heads for several kinds of features and several learning rates, SGD with momentum,
a cosine schedule; the best on validation samples is the result. The gradients of one head do not touch another, so
each becomes what it would be alone.
Differs from the reference: the heads of one kind of features are one matrix product; names have as many decimals of
the learning rate as tell the heads apart, five at least.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dinov2.utils.rng import derive_seed

from .features import Features
from .linear_model import PIECE, LinearModel

# DINOv2's, for a batch of 256.
LEARNING_RATES = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, 0.1)


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
    """A linear layer for every kind of features and every learning rate, by DINOv2's names."""

    def __init__(
        self, inputs: Mapping[str, slice], learning_rates: Sequence[float], *, num_classes: int, seed: int = 0
    ) -> None:
        """Build heads with weights N(0, 0.01^2) and biases of 0.

        Args:
            inputs: columns of the features by the name of their kind, such as "1_blocks_avgpool_True".
            learning_rates: as scaled for the batch; they are part of the names.
        """
        super().__init__()
        self.inputs, self.num_classes = dict(inputs), num_classes
        decimals = _enough_decimals(learning_rates)
        # A row for each kind, a column for each learning rate.
        self.names = {
            kind: [f"classifier_{kind}_lr_{rate:.{decimals}f}".replace(".", "_") for rate in learning_rates]
            for kind in inputs
        }
        # Names of parameters are those of DINOv2's checkpoints: classifiers_dict.{name}.linear.{weight|bias}
        self.classifiers_dict = nn.ModuleDict()
        generator = torch.Generator().manual_seed(derive_seed(seed))
        for kind, columns in inputs.items():
            for name in self.names[kind]:
                linear = nn.Linear(columns.stop - columns.start, num_classes)
                nn.init.normal_(linear.weight, std=0.01, generator=generator)
                nn.init.zeros_(linear.bias)
                self.classifiers_dict[name] = nn.ModuleDict({"linear": linear})

    def linear(self, name: str) -> nn.Linear:
        """One head."""
        return self.get_submodule(f"classifiers_dict.{name}.linear")  # type: ignore[return-value]

    def forward(self, values: Tensor) -> dict[str, Tensor]:
        """Features (B, ...) -> logits (B, L, C) of the L heads of every kind."""
        logits = {}
        for kind, columns in self.inputs.items():
            heads = [self.linear(name) for name in self.names[kind]]
            weight, bias = torch.cat([head.weight for head in heads]), torch.cat([head.bias for head in heads])
            logits[kind] = F.linear(values[:, columns], weight, bias).unflatten(1, (len(heads), self.num_classes))
        return logits

    @torch.no_grad()
    def predictions(self, values: Tensor) -> dict[str, Tensor]:
        """Predicted classes (m,) int64 of every head, for features (m, ...), in main memory."""
        device = next(self.parameters()).device
        found: dict[str, list[Tensor]] = {name: [] for name in self.classifiers_dict}
        for part in values.split(PIECE):
            for kind, logits in self(part.to(device)).items():
                for name, predicted in zip(self.names[kind], logits.argmax(dim=2).T.cpu()):
                    found[name].append(predicted)
        return {name: torch.cat(parts) for name, parts in found.items()}

    def model(self, name: str) -> LinearModel:
        """One head for itself."""
        kind = next(kind for kind, names in self.names.items() if name in names)
        head = self.linear(name)
        return LinearModel(head.weight.detach().clone(), head.bias.detach().clone(), self.inputs[kind])


class HeadScore(NamedTuple):
    """A head and how good it is on validation samples, from 0 to 1."""

    name: str
    value: float


class LinearTraining:
    """Heads, their optimiser and its schedule: all that a checkpoint has to hold."""

    def __init__(self, heads: LinearHeads, settings: LinearSettings) -> None:
        """Prepare to train heads, which are where they are to be trained."""
        self.heads, self.iteration = heads, 0  # steps done
        groups = [
            {
                "params": [p for names in heads.names.values() for p in heads.linear(names[column]).parameters()],
                "lr": rate,
            }
            for column, rate in enumerate(settings.scaled_rates)
        ]
        self._optimizer = torch.optim.SGD(groups, momentum=settings.momentum)
        self._schedule = torch.optim.lr_scheduler.CosineAnnealingLR(self._optimizer, max(settings.iterations, 1))

    def run(self, batches: Iterable[Features]) -> None:
        """A step for each batch of B samples on the device of the heads; equal batches on all ranks."""
        for batch in batches:
            losses = []
            for logits in self.heads(batch.values).values():  # (B, L, C)
                targets = batch.labels[:, None].expand(logits.shape[:2])
                losses.append(F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="sum"))
            self._optimizer.zero_grad()
            (torch.stack(losses).sum() / len(batch.labels)).backward()  # the sum over heads of their mean losses
            self._optimizer.step()
            self._schedule.step()
            self.iteration += 1

    def state_dict(self) -> dict[str, Any]:
        """Heads, optimiser, schedule, and the number of the last step, counted from 0 as in DINOv2."""
        return {
            "model": self.heads.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "scheduler": self._schedule.state_dict(),
            "iteration": self.iteration - 1,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of `state_dict`."""
        self.heads.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["scheduler"])
        self.iteration = state["iteration"] + 1


def best_head(scores: Mapping[str, float]) -> HeadScore:
    """The head with the highest score, the first of several."""
    name = max(scores, key=scores.__getitem__)
    return HeadScore(name, scores[name])


def _enough_decimals(rates: Sequence[float]) -> int:
    """Decimals that tell learning rates apart; five, as DINOv2 has, if they do."""
    return next(d for d in count(5) if d > 12 or len({f"{rate:.{d}f}" for rate in rates}) == len(set(rates)))
