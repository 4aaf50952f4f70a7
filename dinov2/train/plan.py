"""What a run is about to do, found out before anything expensive starts."""

import json
import logging
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dinov2.data import DataAugmentationDINO, MaskingGenerator, collate_data_and_cast, make_data_loader, make_dataset
from dinov2.data.augmentations import AugmentationSettings
from dinov2.data.datasets import TileDataset
from dinov2.data.samplers import PositionSampler
from dinov2.data.training_view import SeededCollate, TrainingView
from dinov2.distributed import get_global_size, is_main_process
from dinov2.logging.sinks import check_sinks
from dinov2.models.build import check_names
from dinov2.utils.atomic import write_text
from dinov2.utils.dtype import compute_dtype

from .schedules import Timeline, resolve_timeline, scaled_learning_rate
from .tuning import Tuner

logger = logging.getLogger("dinov2")


@dataclass
class TrainingPlan:
    """Open data sets and durations."""

    dataset: TileDataset
    tuner: Tuner | None
    timeline: Timeline
    global_batch_size: int


def plan_training(cfg: Any) -> TrainingPlan:
    """Open the data sets, scale the learning rate in `cfg` and resolve all durations.

    Raises:
        UserError: if data or durations are not right.
    """
    output_dir = Path(cfg.train.output_dir)
    check_names(cfg.student)
    check_sinks(cfg)
    dataset = make_dataset(dataset_str=cfg.train.dataset_path, transform=build_augmentation(cfg))
    tuner = Tuner(cfg, output_dir / "results" / "tune.jsonl") if cfg.tune.query_dataset_path else None
    global_batch_size = cfg.train.batch_size_per_gpu * get_global_size()
    timeline = resolve_timeline(cfg, num_samples=len(dataset), global_batch_size=global_batch_size)
    cfg.optim.lr = scaled_learning_rate(cfg, global_batch_size)
    logger.info(f"learning rate {cfg.optim.lr:.3g} for a batch of {global_batch_size}")
    logger.info(f"iterations: {timeline}")
    if is_main_process():
        write_text(output_dir / "timeline.json", json.dumps(asdict(timeline), indent=1) + "\n")
    return TrainingPlan(dataset, tuner, timeline, global_batch_size)


def build_augmentation(cfg: Any) -> DataAugmentationDINO:
    """The crops that the `crops` and `augmentation` sections describe."""
    settings: dict[str, Any] = dict(cfg.augmentation)
    settings.update(mean=tuple(cfg.augmentation.mean), std=tuple(cfg.augmentation.std))
    return DataAugmentationDINO(
        tuple(cfg.crops.global_crops_scale),
        tuple(cfg.crops.local_crops_scale),
        cfg.crops.local_crops_number,
        global_crops_size=cfg.crops.global_crops_size,
        local_crops_size=cfg.crops.local_crops_size,
        settings=AugmentationSettings(**settings),
    )


def build_loader(cfg: Any, dataset: TileDataset, *, start: int, device: torch.device) -> DataLoader:
    """Endless batches of this rank, from a position of the shuffled stream on."""
    size, patch = cfg.crops.global_crops_size, cfg.student.patch_size
    side = size // patch
    # The largest block of a mask as DINOv2 computes it, from left to right: 128 of 256 patches for 224 and 14.
    mask_generator = MaskingGenerator(side, max_num_patches=0.5 * size // patch * size // patch)
    collate = partial(
        collate_data_and_cast,
        mask_ratio_tuple=tuple(cfg.ibot.mask_ratio_min_max),
        mask_probability=cfg.ibot.mask_sample_probability,
        dtype=compute_dtype(cfg.compute_precision.student.backbone.mixed_precision.param_dtype, device),
        n_tokens=side * side,
        mask_generator=mask_generator,
    )
    return make_data_loader(
        dataset=TrainingView(dataset, seed=cfg.train.seed),
        batch_size=cfg.train.batch_size_per_gpu,
        num_workers=cfg.train.num_workers,
        sampler=PositionSampler(start=start),
        collate_fn=SeededCollate(collate, seed=cfg.train.seed),
    )
