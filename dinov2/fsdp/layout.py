"""What a configuration says about the spread of one submodule, in plain values."""

from dataclasses import dataclass

import torch

NO_SHARD = "NO_SHARD"
SHARD_GRAD_OP = "SHARD_GRAD_OP"
FULL_SHARD = "FULL_SHARD"


@dataclass(frozen=True)
class Layout:
    """Where the weights of a submodule are, and the dtypes that it computes and averages gradients in.

    NO_SHARD: every rank holds all weights. SHARD_GRAD_OP: a rank holds a part of weights, gradients, moments
    and moving average, and gathers the weights for the time from forward to backward pass. FULL_SHARD: each
    block gathers its weights for its own forward pass, and again for its own backward pass.
    """

    strategy: str
    param_dtype: torch.dtype
    reduce_dtype: torch.dtype

    @property
    def is_sharded(self) -> bool:
        """Whether a rank holds a part of the weights only."""
        return self.strategy != NO_SHARD

    def frees_after_forward(self, *, trained: bool) -> bool:
        """Whether gathered weights go as soon as they were used; without a backward pass nothing else frees them."""
        return self.strategy == FULL_SHARD or not trained
