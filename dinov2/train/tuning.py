"""k-NN on labelled tiles while the model trains, and stopping when it no longer gets better."""

import json
import logging
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from dinov2.data import make_dataset
from dinov2.data.transforms import make_classification_eval_transform
from dinov2.distributed import is_main_process
from dinov2.eval.features import Extraction, Network, Rounds, extract_features, plain_rounds
from dinov2.eval.knn_votes import KnnSettings, evaluate_knn
from dinov2.eval.tokens import FeatureKind, backbone_network, evaluated

from .schedules import Timeline
from .ssl_meta_arch import SSLMetaArch

logger = logging.getLogger("dinov2")

NETWORKS = ("teacher", "student")


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
            rounds: see `Extraction`.
        """
        backbones = {name: model.get_submodule(f"{name}.backbone") for name in NETWORKS}
        networks = {name: self._class_tokens(name, backbone, model) for name, backbone in backbones.items()}
        how = Extraction(
            batch_size=self.cfg.tune.knn.batch_size,
            num_workers=self.cfg.train.num_workers,
            on_cpu=self.cfg.tune.knn.gather_on_cpu,
            rounds=rounds,
        )
        with evaluated(*backbones.values()):
            query, test = (
                extract_features(networks, dataset, device=model.device, how=how) for dataset in (self.query, self.test)
            )
        scores = {}
        for name in NETWORKS:
            found = evaluate_knn(query[name], test[name], self._settings)
            scores.update({f"{name}.{metric}": value for metric, value in found.items()})
        if is_main_process():
            self._write(scores, iteration)
        return scores

    def _class_tokens(self, name: str, backbone: Any, model: SSLMetaArch) -> Network:
        """Student or teacher as what computes class tokens."""
        dtype = self.cfg.compute_precision[name].backbone.mixed_precision.param_dtype
        return backbone_network(backbone, FeatureKind(), dtype=dtype, device=model.device)

    @property
    def _settings(self) -> KnnSettings:
        knn = self.cfg.tune.knn
        return KnnSettings(
            nb_knn=list(knn.nb_knn),
            temperature=knn.temperature,
            n_per_class_list=list(knn.n_per_class_list),
            n_tries=knn.n_tries,
        )

    def _write(self, scores: dict[str, float], iteration: int) -> None:
        self.results_file.parent.mkdir(parents=True, exist_ok=True)
        with self.results_file.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"iteration": iteration, **scores}) + "\n")
            file.flush()
            os.fsync(file.fileno())  # a checkpoint that comes after it must not outlive it
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
