"""Where metrics go besides `training_metrics.json`: TensorBoard and Weights & Biases, on request."""

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from dinov2.distributed import is_main_process
from dinov2.errors import UserError


class MetricSink(Protocol):
    """Takes numbers by name at a training iteration."""

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values."""

    def close(self) -> None:
        """Flush what was recorded."""


class TensorboardSink:
    """Event files in {output_dir}/tensorboard."""

    def __init__(self, output_dir: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.writer = SummaryWriter(str(output_dir / "tensorboard"))

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values as scalars."""
        for name, value in values.items():
            self.writer.add_scalar(name, value, iteration)

    def close(self) -> None:
        """Flush and close the event file."""
        self.writer.close()


class WandbSink:
    """A run at Weights & Biases, offline where no key is set, so that no batch job waits for a login."""

    def __init__(self, output_dir: Path, settings: Any, config: dict[str, Any]) -> None:
        import os

        import wandb

        self.run = wandb.init(
            project=settings.project or None,
            entity=settings.username or None,
            name=settings.exp_name or None,
            group=settings.group,
            tags=[str(tag) for tag in settings.tags],
            dir=settings.dir or str(output_dir),
            config=config,
            id=settings.resume_id,
            resume="must" if settings.resume_id else None,
            mode="online" if os.environ.get("WANDB_API_KEY") else "offline",
        )

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values."""
        self.run.log(dict(values), step=iteration)

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


def check_sinks(cfg: Any) -> None:
    """Check, on every rank, that the packages of the sinks asked for are there.

    Raises:
        UserError: if one is missing.
    """
    for name in ("tensorboard", "wandb"):
        if cfg[name].enable and find_spec(name) is None:
            raise UserError(f"{name}.enable=true needs the package: pip install {name}")


def make_sinks(cfg: Any, output_dir: Path) -> list[MetricSink]:
    """The sinks that a configuration asks for; none on other ranks than the first."""
    if not is_main_process():
        return []
    sinks: list[MetricSink] = []
    if cfg.tensorboard.enable:
        sinks.append(TensorboardSink(output_dir))
    if cfg.wandb.enable:
        from omegaconf import OmegaConf

        config = OmegaConf.to_container(cfg, resolve=True)
        sinks.append(WandbSink(output_dir, cfg.wandb, config))  # type: ignore[arg-type]
    return sinks
