"""k-NN on labelled tiles while the model trains, and stopping when it no longer gets better."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from dinov2.data import make_dataset
from dinov2.data.transforms import make_classification_eval_transform
from dinov2.distributed import is_main_process
from dinov2.eval.features import Rounds, plain_rounds
from dinov2.eval.knn import knn_of_model
from dinov2.utils.dtype import autocast

from .schedules import Timeline
from .ssl_meta_arch import SSLMetaArch

logger = logging.getLogger("dinov2")


class Tuner:
    """Evaluates teacher and student on the data sets of the `tune` section."""

    def __init__(self, cfg: Any, results_file: Path) -> None:
        """Open both data sets.

        Raises:
            UserError: if one of them is not right.
        """
        self.cfg = cfg
        self.results_file = results_file
        transform = make_classification_eval_transform(
            resize_size=cfg.tune.tile_size,
            crop_size=cfg.tune.crop_size,
            mean=list(cfg.augmentation.mean),
            std=list(cfg.augmentation.std),
        )
        self.query, self.test = (
            make_dataset(dataset_str=path, transform=transform, max_pixels=cfg.data.max_pixels)
            for path in (cfg.tune.query_dataset_path, cfg.tune.test_dataset_path)
        )

    def __call__(self, model: SSLMetaArch, iteration: int, rounds: Rounds = plain_rounds) -> dict[str, float]:
        """Scores after `iteration` steps, by name such as "teacher.bacc_20"; all ranks take part.

        Args:
            rounds: see `extract_features`.
        """
        model.eval()
        scores = {}
        for network in ("teacher", "student"):
            evaluated = self._evaluate(model, network, rounds)
            scores.update({f"{network}.{metric}": value for metric, value in evaluated.items()})
        model.train()
        if is_main_process():
            self._write(scores, iteration)
        return scores

    def _evaluate(self, model: SSLMetaArch, network: str, rounds: Rounds) -> dict[str, float]:
        backbone = model.get_submodule(f"{network}.backbone")
        dtype = self.cfg.compute_precision[network].backbone.mixed_precision.param_dtype

        def class_tokens(images: Tensor) -> Tensor:
            """(B, C, H, W) -> (B, D)."""
            with autocast(dtype, model.device):
                return backbone(images)

        with model.gathered(network, "backbone"):  # ranks may have one batch more or less than others
            return knn_of_model(
                class_tokens,
                self.query,
                self.test,
                settings=self.cfg.tune.knn,
                device=model.device,
                num_workers=self.cfg.train.num_workers,
                rounds=rounds,
            )

    def _write(self, scores: dict[str, float], iteration: int) -> None:
        self.results_file.parent.mkdir(parents=True, exist_ok=True)
        with self.results_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **scores}) + "\n")
        shown = {name: value for name, value in scores.items() if ".bacc_" in name}
        logger.info(
            f"k-NN after {iteration} steps, balanced accuracy: "
            + ", ".join(f"{name.replace('.bacc_', ' k=')} {100 * value:.1f} %" for name, value in shown.items())
        )


@dataclass
class EarlyStopping:
    """Remembers the best score of the teacher, and says when it is too long ago."""

    tracking: str
    sign: float
    patience: int | None  # iterations; None: never stop
    minimum: int  # iterations
    best: float = -float("inf")
    best_iteration: int = 0
    stopped: bool = False

    @classmethod
    def from_config(cls, cfg: Any, timeline: Timeline) -> "EarlyStopping":
        """The settings of `tune.early_stopping`."""
        settings = cfg.tune.early_stopping
        return cls(
            tracking=settings.tracking,
            sign=1.0 if settings.min_max == "max" else -1.0,
            patience=timeline.early_stopping_patience if settings.enable else None,
            minimum=timeline.early_stopping_minimum,
        )

    def update(self, scores: dict[str, float], iteration: int) -> bool:
        """Take the scores after `iteration` steps; True, now and after a resume, if training should stop."""
        score = self.sign * scores.get(f"teacher.{self.tracking}", float("nan"))
        if score > self.best:
            self.best, self.best_iteration = score, iteration
        if self.patience is not None and iteration >= self.minimum:
            self.stopped = iteration - self.best_iteration >= self.patience
        return self.stopped

    def state_dict(self) -> dict[str, Any]:
        """The best score so far, when it was, and whether that was too long ago."""
        return {key: value for key, value in asdict(self).items() if key in ("best", "best_iteration", "stopped")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of `state_dict`."""
        self.best, self.best_iteration, self.stopped = state["best"], state["best_iteration"], state["stopped"]
