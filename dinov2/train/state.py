"""Everything that a step reads and a run must not lose."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from dinov2.errors import UserError
from dinov2.logging import MetricLogger

from .checkpoint import SavedCheckpoint, Snapshot, TensorKind, json_digest
from .early_stopping import EarlyStopping
from .guards import NonFiniteGuard
from .ssl_meta_arch import SSLMetaArch

MODEL = "model."  # names of networks and centres begin with it in a checkpoint
OPTIMIZER = "optimizer."  # then comes the parameter's name in the student, then the moment's


@dataclass
class TrainState:
    """The live objects of a run and its counters.

    Random numbers need no place here: those of data are a function of the position in the stream, those of a
    step are a function of the step. Nothing depends on the number of processes.
    """

    model: SSLMetaArch
    optimizer: torch.optim.Optimizer
    metrics: MetricLogger
    early_stopping: EarlyStopping
    guard: NonFiniteGuard
    settings: Mapping[str, Any] = field(default_factory=dict)  # those that the numbers depend on
    iteration: int = 0  # steps taken
    samples_consumed: int = 0  # positions of the data stream used by all ranks
    hooks_pending: bool = True  # whether what follows the last step (evaluation, export) is still to be run

    def __post_init__(self) -> None:
        # Taken while every parameter is the sharded one: a forward pass may replace it for a while.
        self._parameters = dict(self.model.student.named_parameters())

    def snapshot(self) -> Snapshot:
        """The state as a checkpoint holds it; tensors share memory with the live ones."""
        tensors = {f"{MODEL}{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self._parameters.items():
            for moment, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"{OPTIMIZER}{name}.{moment}"] = value
        scaler = self.model.fp16_scaler
        values = {
            "iteration": self.iteration,
            "samples_consumed": self.samples_consumed,
            "hooks_pending": self.hooks_pending,
            "grad_scaler": scaler.state_dict() if scaler else None,
            "metrics": self.metrics.state_dict(),
            "early_stopping": self.early_stopping.state_dict(),
            "guard": self.guard.state_dict(),
            "settings": dict(self.settings),
        }
        digest = json_digest(values["settings"])
        return Snapshot(tensors, values, config_digest=digest, kept=self.early_stopping.kept_steps())

    def load(self, saved: SavedCheckpoint) -> None:
        """Take over a saved state.

        Raises:
            UserError: if it was made for another model.
        """
        self.load_networks(saved)
        self._load_moments(saved)
        values = saved.values
        if self.model.fp16_scaler and values["grad_scaler"]:
            self.model.fp16_scaler.load_state_dict(values["grad_scaler"])
        self.metrics.load_state_dict(values["metrics"])
        self.early_stopping.load_state_dict(values["early_stopping"])
        self.guard.load_state_dict(values["guard"])
        self.iteration = values["iteration"]
        self.samples_consumed = values["samples_consumed"]
        self.hooks_pending = values["hooks_pending"]

    def load_networks(self, saved: SavedCheckpoint) -> None:
        """Take over student, teacher and centres alone.

        Raises:
            UserError: if they are of another model.
        """
        own = {f"{MODEL}{name}": tensor for name, tensor in self.model.state_dict().items()}
        described = {name: TensorKind(tensor.dtype, tuple(tensor.shape)) for name, tensor in own.items()}
        found = {name: kind for name, kind in saved.tensors.items() if name.startswith(MODEL)}
        differing = sorted(name for name in described.keys() | found.keys() if described.get(name) != found.get(name))
        if differing:
            shown = [f"{name} is {described.get(name)} here and {found.get(name)} there" for name in differing[:3]]
            raise UserError(
                f"the checkpoint {saved.path} is of another model than the configuration describes: {'; '.join(shown)}"
                f"{' ...' if len(differing) > 3 else ''}. Change the configuration, the checkpoint (MODEL.WEIGHTS) or "
                "the --output-dir, or start over with --no-resume"
            )
        saved.read_into(own)

    def _load_moments(self, saved: SavedCheckpoint) -> None:
        """Take over the optimiser's moments; rates, betas and kernels stay those of this run's configuration."""
        moments: dict[nn.Parameter, dict[str, Tensor]] = {}
        kinds = {name: kind for name, kind in saved.tensors.items() if name.startswith(OPTIMIZER)}
        to_read = {}
        for name, kind in kinds.items():
            parameter_name, _, moment = name.removeprefix(OPTIMIZER).rpartition(".")
            parameter = self._parameters[parameter_name]
            # Moments are sharded as their parameter is; counts of steps are no tensors of its shape.
            value = torch.zeros_like(parameter) if kind.shape == parameter.shape else torch.zeros(kind.shape)
            to_read[name] = moments.setdefault(parameter, {})[moment] = value
        saved.read_into(to_read)
        own = self.optimizer.state_dict()["param_groups"]
        in_order = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        by_number = {number: moments[parameter] for number, parameter in enumerate(in_order) if parameter in moments}
        self.optimizer.load_state_dict({"state": by_number, "param_groups": own})
