"""Where metrics go besides `training_metrics.json`: TensorBoard and Weights & Biases, on request.

Neither can end a training: what goes wrong there is said once.
"""

import logging
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from dinov2.distributed import is_main_process
from dinov2.errors import UserError

from .metrics_file import METRICS_FILE, last_iteration
from .wandb_sink import WandbSink

logger = logging.getLogger("dinov2")


class MetricSink(Protocol):
    """Takes numbers by name at a training iteration."""

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values."""

    def close(self) -> None:
        """Flush what was recorded."""


class TensorboardSink:
    """Event files in {output_dir}/tensorboard."""

    def __init__(self, output_dir: Path, *, start: int = 0) -> None:
        """Open a new file; what others have of iteration `start` and later ones, TensorBoard leaves out."""
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(output_dir / "tensorboard"), purge_step=start)

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values as scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()


class GuardedSink:
    """A sink whose first error is a warning, and whose later ones are not heard."""

    def __init__(self, name: str, sink: MetricSink) -> None:
        """Take a sink and what people call it."""
        self.name, self.sink = name, sink
        self._has_failed = False

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values."""
        self._attempt(lambda: self.sink.log(values, iteration))

    def close(self) -> None:
        """Flush what was recorded."""
        self._attempt(self.sink.close)

    def _attempt(self, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            if not self._has_failed:
                _warn(self.name, error)
            self._has_failed = True


def check_sinks(cfg: Any) -> None:
    """Check, on every rank, that the packages of the sinks asked for are there.

    Raises:
        UserError: if one is missing.
    """
    for name in ("tensorboard", "wandb"):
        # A folder `wandb` with earlier runs in the working directory is found too, as a package without a file.
        if cfg[name].enable and getattr(find_spec(name), "origin", None) is None:
            raise UserError(f"{name}.enable=true needs the package: pip install {name}")


def make_sinks(cfg: Any, output_dir: Path, *, start: int = 0) -> list[MetricSink]:
    """The sinks that a configuration asks for, as far as they work; none on other ranks than the first.

    Args:
        start: the iteration that the training goes on with; its metrics file still has all lines.
    """
    if not is_main_process():
        return []
    sinks: list[MetricSink] = []
    for section, (name, make) in _MAKERS.items():
        if cfg[section].enable:
            try:
                sinks.append(GuardedSink(name, make(cfg, output_dir, start)))
            except Exception as error:
                _warn(name, error)
    return sinks


def _make_wandb(cfg: Any, output_dir: Path, start: int) -> MetricSink:
    from omegaconf import OmegaConf

    config: Any = OmegaConf.to_container(cfg, resolve=True)
    logged = last_iteration(output_dir / METRICS_FILE) + 1
    return WandbSink(output_dir, cfg.wandb, config, start=start, logged=logged)


_MAKERS: dict[str, tuple[str, Callable[[Any, Path, int], MetricSink]]] = {
    "tensorboard": ("TensorBoard", lambda cfg, output_dir, start: TensorboardSink(output_dir, start=start)),
    "wandb": ("Weights & Biases", _make_wandb),
}


def _warn(name: str, error: Exception) -> None:
    logger.warning(f"{name}: {type(error).__name__}: {error}. Training goes on; {METRICS_FILE} has all figures")
