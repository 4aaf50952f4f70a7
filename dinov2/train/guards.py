"""What happens when a loss or a gradient is NaN or infinite.

All ranks learn of it in the same step, before its gradient is clipped and used. Weights, moments and moving average
then stay as they are, and `train_step` puts the centres back, which forward passes move. A run whose every step
passes this holds finite weights only: a finite norm bounds gradients, and these bound moments and updates.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

from dinov2.errors import UserError

from .evidence import Attempt, write_evidence

logger = logging.getLogger("dinov2")

# fairseq stops at 1e-4 (its --min-loss-scale). From the first scale of 2^16, 30 overflows in a row lead below this.
LOWEST_LOSS_SCALE = 2.0**-13

_ADVICE = (
    "Nothing was updated with it and the last checkpoint is good. Usual causes: a learning rate too high for the "
    "batch (optim.base_lr), fp16 without grad_scaler, damaged images."
)


class NonFiniteError(UserError):
    """A loss or gradient that is NaN or infinite; no step was taken with it."""


@dataclass
class NonFiniteGuard:
    """Refuses steps with what is not finite: stops the run, or leaves single steps out and counts them."""

    policy: str  # stop | skip
    most_in_a_row: int  # steps left out, at which the run stops all the same
    folder: Path  # gets a file about every such step
    name_tile: Callable[[int], str] = str  # from the index of a tile in the data set
    skipped: int = 0  # of the whole run
    in_a_row: int = 0

    @classmethod
    def from_config(cls, cfg: Any, *, name_tile: Callable[[int], str]) -> "NonFiniteGuard":
        """The settings of the `train` section."""
        folder = Path(cfg.train.output_dir, "results")
        return cls(cfg.train.on_nonfinite, cfg.train.max_nonfinite_steps, folder, name_tile)

    def accept(self) -> None:
        """Note a step that is taken."""
        self.in_a_row = 0

    def refuse(self, attempt: Attempt, wrong: Mapping[str, float]) -> None:
        """Note a step that is not taken, and write down what may have caused it; all ranks call it.

        Args:
            wrong: of `nonfinite_figures`.
        Raises:
            NonFiniteError: on all ranks, if the run has to stop.
        """
        self.skipped += 1
        self.in_a_row += 1
        path = write_evidence(
            self.folder, attempt, name_tile=self.name_tile, policy=self.policy, steps_in_a_row=self.in_a_row
        )
        shown = ", ".join(f"{name} = {value}" for name, value in wrong.items())
        found = f"iteration {attempt.iteration}: {shown}." + (f" Tiles and parameters: {path}." if path else "")
        if self.policy == "stop":
            raise NonFiniteError(f"{found} {_ADVICE} To leave single steps like this out, set train.on_nonfinite=skip")
        if self.in_a_row >= self.most_in_a_row:
            raise NonFiniteError(f"{found} {self.in_a_row} in a row, as train.max_nonfinite_steps allows. {_ADVICE}")
        logger.warning(f"{found} The step is left out: {self.in_a_row} in a row, {self.skipped:,} in this run")

    def figures(self) -> dict[str, float]:
        """What the log shows: steps of the whole run that were left out."""
        return {"nonfinite_steps": float(self.skipped)}

    def state_dict(self) -> dict[str, int]:
        """The counts."""
        return {"skipped": self.skipped, "in_a_row": self.in_a_row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Take the state of `state_dict`."""
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]


def nonfinite_figures(means: Mapping[str, float], iteration: int) -> dict[str, float]:
    """Those losses and gradient norms of a step that are not finite.

    With a "loss_scale" gradients of float16 overflow now and then, and the scaler leaves such steps out.

    Raises:
        NonFiniteError: if they overflow with the least loss scale that is of use.
    """
    scale = means.get("loss_scale")
    if scale is not None and scale < LOWEST_LOSS_SCALE:
        raise NonFiniteError(
            f"iteration {iteration}: the loss scale has fallen to {scale:g}, since gradients of float16 overflow in "
            "every step. The weights have hardly changed meanwhile, but the training cannot go on: set optim.base_lr "
            "lower, or compute in bf16 (compute_precision.*.*.mixed_precision.param_dtype)"
        )
    return {
        name: value
        for name, value in means.items()
        if not isfinite(value) and not (scale is not None and name.startswith("grad_norm"))
    }
