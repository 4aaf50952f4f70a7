"""What both probes result in, one matrix and one bias, and what it is chosen by."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

PIECE = 1 << 14  # samples scored together


class HeldOutScore(NamedTuple):
    """How good a classifier is on samples that it is chosen on; the better one is the larger one.

    Few samples make many classifiers equally accurate, of which the likeliest is taken.
    """

    value: float  # an accuracy
    log_likelihood: float  # of the true classes, the mean


class LinearModel(NamedTuple):
    """A linear classifier of features.

    Attributes:
        weight: (C, D).
        bias: (C,); -inf for a class that was not trained on.
        columns: the D features that it reads of those it is given.
    """

    weight: Tensor
    bias: Tensor
    columns: slice = slice(None)

    def scores(self, values: Tensor) -> Tensor:
        """Features (m, ...) -> probabilities (m, C) in main memory."""
        parts = (part[:, self.columns].to(self.weight) for part in values.split(PIECE))
        return torch.cat([F.linear(part, self.weight, self.bias).softmax(dim=1).cpu() for part in parts])
