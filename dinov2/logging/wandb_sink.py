"""Weights & Biases: one run for one training, however often that is interrupted.

What the configuration leaves open its own environment variables (WANDB_PROJECT, WANDB_MODE, ...) decide. The id of the
run stays in the output folder, so that a training that goes on, goes on there too.
"""

import logging
import netrc
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

logger = logging.getLogger("dinov2")

RUN_ID_FILE = "wandb_run_id.txt"
FINISH_SECONDS = 120  # for what is still to be uploaded when a training ends; `wandb sync` takes the rest


class WandbSink:
    """A run at Weights & Biases; offline where no key is known, so that no batch job waits for a login."""

    def __init__(self, output_dir: Path, settings: Any, config: dict[str, Any], *, start: int, logged: int) -> None:
        """Begin the run, or go on with the one whose id is in the output folder.

        Args:
            start: the iteration that comes first here.
            logged: the one after the last that was logged before this process.
        """
        os.environ.setdefault("WANDB_FINISH_TIMEOUT", str(FINISH_SECONDS))
        import wandb

        kept = output_dir / RUN_ID_FILE
        name, resume = _identity(settings, kept)
        self.run = _init(
            wandb,
            project=settings.project or None,
            entity=settings.username or None,
            name=settings.exp_name or None,
            group=settings.group,
            tags=[str(tag) for tag in settings.tags] or None,
            dir=settings.dir or os.environ.get("WANDB_DIR") or str(output_dir),
            config=config,
            id=name,
            resume=resume,
            mode=_mode(wandb),
        )
        self._start = start
        # The step that the run is at: as the server says, or, for one that was recorded offline, the files.
        self._step = (getattr(self.run, "step", 0) or logged) if name else 0
        kept.write_text(f"{self.run.id}\n", encoding="utf-8")

    def log(self, values: Mapping[str, float], iteration: int) -> None:
        """Record values, unless the run has them: those between the last checkpoint and a crash come again, equal."""
        if not self._start <= iteration < self._step:
            self.run.log(dict(values), step=max(iteration, self._step))

    def close(self) -> None:
        """Finish the run."""
        self.run.finish()


def _identity(settings: Any, kept: Path) -> tuple[str | None, str | None]:
    """The id of the run, None for a new one, and how it is resumed, None where WANDB_RESUME says that."""
    if settings.resume_id:
        return settings.resume_id, "must"
    resume = os.environ.get("WANDB_RESUME")
    name = os.environ.get("WANDB_RUN_ID")
    if not name and resume != "never" and kept.is_file():
        name = kept.read_text(encoding="utf-8").strip()
    return name or None, "allow" if name and not resume else None


def _init(wandb: Any, **given: Any) -> Any:
    """The run; offline where the server does not answer or refuses."""
    try:
        return wandb.init(**given)
    except Exception as error:
        if given["mode"] == "offline":
            raise
        logger.warning(
            f"Weights & Biases: {str(error).splitlines()[0] if str(error) else type(error).__name__}. The run is "
            f"recorded in {given['dir']}/wandb instead; `wandb sync` uploads it from there"
        )
        # Its service holds on to the id of a run that could not begin, and would refuse it as one in use.
        getattr(wandb, "teardown", lambda: None)()
        return wandb.init(**{**given, "mode": "offline"})


def _mode(wandb: Any) -> str | None:
    """What the package is told; None where its own variables and settings decide."""
    if os.environ.get("WANDB_MODE"):
        return None
    if os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1", "yes", "on"):
        return "disabled"  # which the package itself no longer reads
    if _has_key(wandb):
        return None
    logger.info("Weights & Biases: no key is known (`wandb login`, WANDB_API_KEY), so the run is recorded offline")
    return "offline"


def _has_key(wandb: Any) -> bool:
    """Whether there is a key: in a variable, or where `wandb login` leaves it."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").netloc
    try:
        if netrc.netrc(os.environ.get("NETRC")).authenticators(host):
            return True
    except (OSError, netrc.NetrcParseError):
        pass
    try:
        return bool(wandb.api.api_key)  # of a server of one's own, in the package's settings
    except Exception:  # not every version has it
        return False
