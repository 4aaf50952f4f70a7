"""Everything that a step reads and a run must not lose."""

from dataclasses import dataclass
from typing import Any

import torch

from dinov2.errors import UserError
from dinov2.logging import MetricLogger

from .ssl_meta_arch import SSLMetaArch
from .tuning import EarlyStopping

FORMAT = 1


@dataclass
class TrainState:
    """The live objects of a run and its two counters.

    Random numbers need no place here: those of data are a function of the position in the stream, those of a
    step are a function of the step.
    """

    model: SSLMetaArch
    optimizer: torch.optim.Optimizer
    metrics: MetricLogger
    early_stopping: EarlyStopping
    iteration: int = 0  # steps taken
    samples_consumed: int = 0  # positions of the data stream used by all ranks

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values only, independent of the number of processes."""
        scaler = self.model.fp16_scaler
        return {
            "format": FORMAT,
            "iteration": self.iteration,
            "samples_consumed": self.samples_consumed,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "grad_scaler": scaler.state_dict() if scaler else None,
            "metrics": self.metrics.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over a saved state.

        Raises:
            UserError: if it was made by another version, or for another model.
        """
        self.load_networks(state)
        self._load_moments(state["optimizer"])
        if self.model.fp16_scaler and state["grad_scaler"]:
            self.model.fp16_scaler.load_state_dict(state["grad_scaler"])
        self.metrics.load_state_dict(state["metrics"])
        self.early_stopping.load_state_dict(state["early_stopping"])
        self.iteration = state["iteration"]
        self.samples_consumed = state["samples_consumed"]

    def _load_moments(self, saved: dict[str, Any]) -> None:
        """Take over the optimiser's moments; rates, betas and kernels stay those of this run's configuration."""
        own = self.optimizer.state_dict()
        if [len(group["params"]) for group in saved["param_groups"]] != [
            len(group["params"]) for group in own["param_groups"]
        ]:
            raise UserError(
                "the checkpoint's parameters are grouped in another way than the configuration says: set "
                "optim.layerwise_decay and optim.patch_embed_lr_mult as they were, or start over with --no-resume"
            )
        self.optimizer.load_state_dict({"state": saved["state"], "param_groups": own["param_groups"]})

    def load_networks(self, state: dict[str, Any]) -> None:
        """Take over student, teacher and centres alone.

        Raises:
            UserError: if the state was made by another version, or for another model.
        """
        if state.get("format") != FORMAT:
            raise UserError(f"the checkpoint has format {state.get('format')}, this version reads format {FORMAT}")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            lines = [line.strip() for line in str(error).splitlines()[1:4]]
            raise UserError(
                f"the checkpoint is of another model than the configuration describes ({' '.join(lines)} ...). Change "
                "the configuration, the checkpoint (MODEL.WEIGHTS) or the --output-dir, or start over with --no-resume"
            ) from error
