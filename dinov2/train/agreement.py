"""What all ranks know of a step: everything that they have to agree on rides on one reduction.

A step then has one collective beside those of its losses and gradients, and waits for the device once.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from dinov2.distributed import all_reduce_sum, get_global_size


class Agreement(NamedTuple):
    """Figures by name, the same on all ranks."""

    means: dict[str, float]
    sums: dict[str, int]


def agree(means: Mapping[str, Tensor], sums: Mapping[str, int]) -> Agreement:
    """Average and add up over ranks, all of which call this with the same names.

    Args:
        means: () tensors on one device, at least one. What is NaN or infinite on one rank is so in the mean.
        sums: counts, exact up to 2^24.
    """
    values = [value.detach().float() for value in means.values()]
    values += [values[0].new_full((), float(count)) for count in sums.values()]  # copies nothing to the device
    total = all_reduce_sum(torch.stack(values))
    total[: len(means)] /= get_global_size()
    numbers = total.tolist()
    counted = map(round, numbers[len(means) :])
    return Agreement(dict(zip(means, numbers)), dict(zip(sums, counted, strict=True)))
