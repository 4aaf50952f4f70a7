"""The best score of the teacher so far, and stopping when that is too long ago. All durations are in iterations."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dinov2.configs.tune_scores import full_name

from .schedules import Timeline

logger = logging.getLogger("dinov2")

# What a checkpoint holds.
_STATE = ("tracking", "sign", "best", "best_iteration", "newest")


@dataclass
class EarlyStopping:
    """Remembers when the tracked score was best; training stops when that is `patience` iterations ago.

    Attributes:
        tracking: the score, as `tune.early_stopping.tracking` names it.
        sign: 1 where more is better, else -1.
        patience: iterations; None: never stop.
        minimum: iterations before which training does not stop.
        keeps_best: whether the checkpoint of the best score is to stay.
        best: the best score times the sign; -inf before there is one.
        best_iteration: when it was.
        newest: iteration of the last score.
    """

    tracking: str
    sign: float = 1.0
    patience: int | None = None
    minimum: int = 0
    keeps_best: bool = False
    best: float = -float("inf")
    best_iteration: int = 0
    newest: int = 0

    @classmethod
    def from_config(cls, cfg: Any, timeline: Timeline) -> "EarlyStopping":
        """The settings of `tune`."""
        settings = cfg.tune.early_stopping
        return cls(
            tracking=settings.tracking,
            sign=1.0 if settings.min_max == "max" else -1.0,
            patience=timeline.early_stopping_patience if settings.enable else None,
            minimum=timeline.early_stopping_minimum,
            keeps_best=cfg.tune.keep_best,
        )

    @property
    def score_name(self) -> str:
        """The tracked score's full name."""
        return full_name(self.tracking)

    @property
    def best_score(self) -> float:
        """The best score, as it was reported."""
        return self.sign * self.best

    @property
    def stopped(self) -> bool:
        """Whether training is to stop."""
        return (
            self.patience is not None
            and self.newest >= self.minimum
            and self.newest - self.best_iteration >= self.patience
        )

    def is_best_at(self, iteration: int) -> bool:
        """Whether the best score so far is that after `iteration` steps."""
        return self._has_best and self.best_iteration == iteration

    def kept_steps(self) -> frozenset[int]:
        """Steps whose checkpoints are to stay."""
        return frozenset([self.best_iteration] if self.keeps_best and self._has_best else [])

    @property
    def _has_best(self) -> bool:
        return self.best > -float("inf")

    def update(self, scores: Mapping[str, float], iteration: int) -> None:
        """Take the scores after `iteration` steps; one that is missing or no number is no improvement."""
        score = self.sign * scores.get(self.score_name, float("nan"))
        if score > self.best:
            self.best, self.best_iteration = score, iteration
        self.newest = iteration

    def state_dict(self) -> dict[str, Any]:
        """What was found, and by which score."""
        return {name: getattr(self, name) for name in _STATE}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take the state of `state_dict`; where another score was tracked, only begin to count from its last one."""
        if (state["tracking"], state["sign"]) == (self.tracking, self.sign):
            self.best, self.best_iteration = state["best"], state["best_iteration"]
        else:
            logger.warning(f"from here on {self.tracking} is tracked, not {state['tracking']}: no best is known yet")
            self.best_iteration = state["newest"]
        self.newest = state["newest"]
