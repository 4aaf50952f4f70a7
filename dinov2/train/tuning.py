"""Scores on labelled tiles while the model trains: what is evaluated, how it is reported and written down."""

import json
import logging
import os
import re
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from dinov2.configs.tune_scores import TEACHER, full_name, trackable_scores
from dinov2.data.datasets import TileDataset
from dinov2.data.transforms import make_classification_eval_transform
from dinov2.data.worker_count import image_bytes, usable_workers
from dinov2.errors import UserError
from dinov2.eval.features import Extraction, Features, Network, Rounds, extract_features, plain_rounds
from dinov2.eval.knn_votes import KnnSettings
from dinov2.eval.labelled import label_features
from dinov2.eval.linear_heads import LinearSettings
from dinov2.eval.pair_scores import PairSettings, score_pair
from dinov2.eval.tokens import backbone_network, evaluated
from dinov2.models import build_model_from_cfg
from dinov2.utils.atomic import write_text
from dinov2.utils.outputs import output_errors

from .ssl_meta_arch import SSLMetaArch
from .tuning_sets import Pair, check_held_out, check_overlaps, open_pairs

logger = logging.getLogger("dinov2")

STUDENT = "student"

# Names of scores that the line for people shows.
_SHOWN = re.compile(rf"(?P<place>(.+\.)?){TEACHER}\.(?!site_)((?P<probe>\w+)_)?bacc(_(?P<case>\d+(_\d+shot)?))?")


class Tuner:
    """Evaluates teacher and student on the data sets of the `tune` section."""

    def __init__(self, cfg: Any, training: TileDataset) -> None:
        """Open the data sets.

        Args:
            training: the tiles that the model trains on, which should be of other slides.
        Raises:
            UserError: if one of them is not right, or shares slides with another.
        """
        self.cfg = cfg
        self.settings = pair_settings(cfg.tune)
        self.networks = (TEACHER, STUDENT) if cfg.tune.student else (TEACHER,)
        _check_depth(cfg, self.settings.kind.num_blocks)
        self.pairs = open_pairs(
            cfg.tune,
            transform=make_classification_eval_transform(
                resize_size=cfg.tune.tile_size,
                crop_size=cfg.tune.crop_size,
                mean=list(cfg.augmentation.mean),
                std=list(cfg.augmentation.std),
            ),
            max_pixels=cfg.data.max_pixels,
        )
        check_overlaps(training, self.pairs, allowed=list(cfg.tune.allow_overlap))
        if set(self.settings.probes) - {"knn"}:
            linear = self.settings.linear
            for pair in self.pairs:
                check_held_out(pair, share=linear.held_out, seed=linear.seed)
        _warn_of_unknown_score(cfg.tune)

    def __call__(self, model: SSLMetaArch, iteration: int, rounds: Rounds = plain_rounds) -> dict[str, float]:
        """Scores after `iteration` steps, by name such as "crc.teacher.bacc_20".

        Every tile is read once for both networks. All ranks take part, and get the scores of the main process, so that
        rounding on different machines cannot part them.

        Args:
            rounds: see `Extraction`.
        """
        began = time.monotonic()
        scores: dict[str, float] = {}
        for pair in self.pairs:
            classes = len(pair.query.classes)
            for network, (query, test) in self._features(model, pair, rounds).items():
                settings = self.settings if network == TEACHER else replace(self.settings, resamples=0)
                found = score_pair(query, test, settings, num_classes=classes, device=model.device)
                scores |= {full_name(f"{pair.prefix}{name}", network): value for name, value in found.items()}
        logger.info(f"scores after {iteration} steps: {summary(scores)}; {time.monotonic() - began:.1f} s")
        return scores

    def _features(self, model: SSLMetaArch, pair: Pair, rounds: Rounds) -> dict[str, tuple[Features, Features]]:
        """Query and test features by each network."""
        backbones = {name: model.get_submodule(f"{name}.backbone") for name in self.networks}
        networks = {name: self._network(name, backbone, model) for name, backbone in backbones.items()}
        how = Extraction(
            batch_size=self.cfg.tune.knn.batch_size,
            num_workers=usable_workers(
                self.cfg.train.num_workers,
                key="train.num_workers",
                batch_bytes=image_bytes(self.cfg.tune.crop_size) * self.cfg.tune.knn.batch_size,
            ),
            on_cpu=self.cfg.tune.knn.gather_on_cpu,
            rounds=rounds,
        )
        sets = (pair.query, pair.test)
        with evaluated(*backbones.values()):
            found = [extract_features(networks, one.dataset, device=model.device, how=how) for one in sets]
        return {
            name: tuple(label_features(sets, [features[name].values for features in found]))  # type: ignore[misc]
            for name in self.networks
        }

    def _network(self, name: str, backbone: Any, model: SSLMetaArch) -> Network:
        """Student or teacher as what computes the features that all probes need."""
        dtype = self.cfg.compute_precision[name].backbone.mixed_precision.param_dtype
        return backbone_network(backbone, self.settings.kind, dtype=dtype, device=model.device)


def pair_settings(tune: Any) -> PairSettings:
    """How the `tune` section wants features to be scored."""
    knn, linear = tune.knn, tune.linear
    tracked = tune.early_stopping.tracking.rpartition("_")[2]
    return PairSettings(
        probes=tuple(tune.probes),
        knn=KnnSettings(
            nb_knn=list(knn.nb_knn),
            temperature=knn.temperature,
            n_per_class_list=list(knn.n_per_class_list),
            n_tries=knn.n_tries,
        ),
        linear=LinearSettings(batch_size=linear.batch_size, iterations=linear.iterations),
        n_last_blocks=list(linear.n_last_blocks),
        resamples=tune.resamples,
        interval_k=next((k for k in knn.nb_knn if str(k) == tracked), knn.nb_knn[0]),
    )


def summary(scores: Mapping[str, float]) -> str:
    """Balanced accuracies for people, such as "balanced accuracy of teacher / student: k=20 81.0 / 79.5 %"."""
    shown = []
    for name, value in scores.items():
        if found := _SHOWN.fullmatch(name):
            other = scores.get(f"{found['place']}{STUDENT}.{name.rpartition('.')[2]}")
            label = (found["place"].rstrip("."), found["probe"], found["case"] and f"k={found['case']}")
            beside = "" if other is None else f" / {100 * other:.1f}"
            shown.append(f"{' '.join(filter(None, label))} {100 * value:.1f}{beside} %")
    names = f"{TEACHER} / {STUDENT}" if any(f"{STUDENT}." in name for name in scores) else TEACHER
    return f"balanced accuracy of {names}: {', '.join(shown)}"


def append_scores(path: Path, scores: Mapping[str, float], iteration: int) -> None:
    """Add a line of scores to a file; it is on disk when this returns."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with output_errors(path), path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"iteration": iteration, **scores}) + "\n")
        file.flush()
        os.fsync(file.fileno())  # a checkpoint that comes after it must not outlive it


def write_scores(path: Path, scores: Mapping[str, float], iteration: int) -> None:
    """Write scores to a file of their own."""
    write_text(path, json.dumps({"iteration": iteration, **scores}, indent=1) + "\n")


def _check_depth(cfg: Any, wanted: int) -> None:
    """Refuse probes of more blocks than the backbone has, before it is built."""
    with torch.device("meta"):  # no memory for its parameters
        depth = build_model_from_cfg(cfg, only_teacher=True)[0].n_blocks
    if wanted > depth:
        raise UserError(
            f"tune.linear.n_last_blocks={list(cfg.tune.linear.n_last_blocks)}: student.arch={cfg.student.arch} has "
            f"{depth} blocks"
        )


def _warn_of_unknown_score(tune: Any) -> None:
    """Say so where no teacher can be the best, since nothing gives the score that says which."""
    tracking, known = tune.early_stopping.tracking, trackable_scores(tune)
    if tune.keep_best and tracking not in known:
        logger.warning(
            f"tune.early_stopping.tracking={tracking} is none of this run's scores, so that no best teacher is kept: "
            f"set it to one of {', '.join(known):.200}"
        )
