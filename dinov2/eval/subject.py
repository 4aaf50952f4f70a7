"""The model that is evaluated, and how images are shown to it."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor
from torchvision import transforms

from dinov2.data.transforms import make_classification_eval_transform, make_classification_train_transform
from dinov2.distributed import get_device
from dinov2.distributed.outcomes import on_main
from dinov2.errors import UserError
from dinov2.hub import resolve_weights, weights_digest
from dinov2.hub.frozen import FrozenBackbone, build_frozen_backbone, check_frozen_backbone
from dinov2.utils.dtype import compute_dtype
from dinov2.utils.rng import seed_everything

from .feature_files import check_suffix, load_features, origin_of, save_features
from .features import Extraction, Features, Network, extract_features
from .labelled import LabelledSet, label_features
from .tokens import FeatureKind, backbone_network

logger = logging.getLogger("dinov2")

# Settings of a backbone that its features depend on; its weights say the rest.
_BACKBONE_KEYS = (
    "arch",
    "patch_size",
    "ffn_layer",
    "num_register_tokens",
    "interpolate_antialias",
    "interpolate_offset",
)


@dataclass(frozen=True)
class Subject:
    """A backbone, and the size of its images.

    Attributes:
        cfg: a configuration that describes the backbone.
        weights_file: its weights, as `resolve_weights` understands them; empty where features come from a file, or
            where it is untrained.
        untrained_seed: of random weights, where these are to be evaluated; None: weights have to be given.
        resize_size: pixels that the shorter side of a tile is resized to.
        crop_size: pixels of the centre that is cut out.
    """

    cfg: DictConfig
    weights_file: str
    untrained_seed: int | None
    resize_size: int
    crop_size: int

    def check(self, features_file: Path | None) -> None:
        """Find mistakes before anything is opened.

        Raises:
            UserError: if there is no such backbone, there are neither weights nor their features, images do not fit, or
                the file's name does not say how features are stored.
        """
        check_frozen_backbone(self.cfg.student)
        if features_file is not None:
            check_suffix(features_file)
        has_features = features_file is not None and features_file.is_file()
        if not self.weights_file and self.untrained_seed is None and not has_features:
            raise UserError(
                "there are no weights to evaluate: name them with --pretrained-weights; "
                "--untrained evaluates random ones, to compare with"
            )
        if self.weights_file and self.untrained_seed is not None:
            raise UserError(f"--untrained evaluates random weights, and {self.weights_file} was given too; drop one")
        if self.crop_size % self.cfg.student.patch_size or not 0 < self.crop_size <= self.resize_size:
            raise UserError(
                f"--crop-size {self.crop_size}: expected a multiple of student.patch_size, which is "
                f"{self.cfg.student.patch_size}, that is not more than --resize-size {self.resize_size}"
            )

    @cached_property
    def num_blocks(self) -> int:
        """Blocks of the backbone, without its parameters being made."""
        with torch.device("meta"):
            return build_frozen_backbone(self.cfg, "").n_blocks

    @cached_property
    def weights(self) -> str | None:
        """The SHA-256 of the weights, or the words for random ones; None if only their features are known."""
        if self.untrained_seed is not None:
            return f"random, of seed {self.untrained_seed}"
        return weights_digest(resolve_weights(self.weights_file)) if self.weights_file else None

    @property
    def precision(self) -> str:
        """The dtype that the backbone computes in."""
        return str(compute_dtype(self._param_dtype, get_device())).removeprefix("torch.")

    def eval_transform(self) -> transforms.Compose:
        """Tile -> (3, crop, crop), the same each time."""
        mean, std = self._normalisation
        return make_classification_eval_transform(
            resize_size=self.resize_size, crop_size=self.crop_size, mean=mean, std=std
        )

    def train_transform(self) -> transforms.Compose:
        """Tile -> (3, crop, crop), drawn at random."""
        mean, std = self._normalisation
        return make_classification_train_transform(crop_size=self.crop_size, mean=mean, std=std)

    @cached_property
    def backbone(self) -> FrozenBackbone:
        """The backbone with its weights, on this process's device.

        Raises:
            UserError: if there are no weights, or not those of the backbone.
        """
        if not self.weights_file and self.untrained_seed is None:
            raise UserError("the model has to run, not only its features to be read: name its --pretrained-weights")
        if self.untrained_seed is not None:
            seed_everything(self.untrained_seed)
        backbone = build_frozen_backbone(self.cfg, self.weights_file)
        return backbone.requires_grad_(False).eval().to(get_device())

    def network(self, kind: FeatureKind) -> Network:
        """What computes features of a kind; see `backbone`."""
        return backbone_network(self.backbone, kind, dtype=self._param_dtype, device=get_device())

    def features(
        self, sets: Sequence[LabelledSet], kind: FeatureKind, *, how: Extraction, file: Path | None = None
    ) -> list[Features]:
        """Features of data sets, each in the order of its tiles; all ranks take part.

        Args:
            file: read instead, if it exists and fits; else written.
        Raises:
            UserError: if the file has other features, or they cannot be computed.
        """
        origin = {} if file is None else self._origin(sets, kind)
        if file is not None and file.is_file():
            values = load_features(file, origin)
            logger.info(f"features are read from {file}")
        else:
            network = self.network(kind)
            values = {one.name: _values(network, one, how) for one in sets}
            if file is not None:
                save_features(file, values, origin)
        return label_features(sets, [values[one.name] for one in sets])

    def record(self, file: Path | None = None) -> dict[str, Any]:
        """What results say about the model.

        Args:
            file: of the features that were used.
        """
        weights = self.weights or (origin_of(file)["weights"] if file is not None else None)
        return {
            "weights": {"file": self.weights_file or None, "sha256": weights},
            "backbone": {key: self.cfg.student[key] for key in _BACKBONE_KEYS},
            "precision": self.precision,
            "images": self._images,
        }

    @property
    def _param_dtype(self) -> str:
        return self.cfg.compute_precision.teacher.backbone.mixed_precision.param_dtype

    @property
    def _images(self) -> dict[str, int]:
        return {"resize_size": self.resize_size, "crop_size": self.crop_size}

    @property
    def _normalisation(self) -> tuple[list[float], list[float]]:
        """Mean and standard deviation of the channels."""
        return list(self.cfg.augmentation.mean), list(self.cfg.augmentation.std)

    def _origin(self, sets: Sequence[LabelledSet], kind: FeatureKind) -> dict[str, Any]:
        """What features are computed from; None for what is not known. All ranks take part."""
        known = self.weights is not None
        origin = {
            "weights": self.weights,
            "backbone": {key: self.cfg.student[key] for key in _BACKBONE_KEYS} if known else None,
            "precision": self.precision if known else None,
            "tokens": str(kind),
            "images": {**self._images, "mean": self._normalisation[0], "std": self._normalisation[1]},
        }
        return origin | on_main(lambda: {f"{one.name} set": one.identity() for one in sets})


def _values(network: Network, labelled: LabelledSet, how: Extraction) -> Tensor:
    """Features (n, D) of a set."""
    how = replace(how, title=f"features of {labelled.name}")
    found = extract_features({labelled.name: network}, labelled.dataset, device=get_device(), how=how)
    return found[labelled.name].values
