"""What a run is about to do, found out before anything expensive starts."""

import json
import logging
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader

from dinov2.configs.unused import unused_settings
from dinov2.configs.validate_tune import evaluates
from dinov2.data import DataAugmentationDINO, MaskingGenerator, make_data_loader, make_dataset
from dinov2.data.augmentations import AugmentationSettings
from dinov2.data.datasets import TileDataset, check_dataset_strings
from dinov2.data.masking import StreamMasks
from dinov2.data.quarantine import Quarantine
from dinov2.data.samplers import PositionSampler
from dinov2.data.training_view import CollateTraining, Order, TrainingView
from dinov2.data.weighted_order import WeightedOrder, check_weights, group_weights
from dinov2.data.worker_count import usable_workers
from dinov2.distributed import get_global_size, is_main_process
from dinov2.hub.frozen import check_pretrained
from dinov2.logging.sinks import check_sinks
from dinov2.models.build import check_names
from dinov2.utils.atomic import write_text
from dinov2.utils.dtype import compute_dtype
from dinov2.utils.rng import Draw

from .arguments import dataset_strings
from .data_identity import identify_data
from .distillation import distils, read_teacher_config
from .resume import check_initial
from .schedules import Timeline, resolve_timeline, scaled_learning_rate
from .ssl_meta_arch import NUM_GLOBAL_CROPS
from .starting_point import StartingPoint
from .tuning import Tuner

logger = logging.getLogger("dinov2")


def _check_teacher(cfg: Any) -> None:
    if distils(cfg):
        read_teacher_config(cfg)


def _check_export(cfg: Any) -> None:
    if cfg.head.head_path:
        StartingPoint(cfg.head)


def _check_checkpoint(cfg: Any) -> None:
    if cfg.MODEL.WEIGHTS and not any(Path(cfg.train.output_dir, "checkpoints").glob("step-*")):
        check_initial(cfg.MODEL.WEIGHTS)


# What settings name and has to be there, found out before anything is opened.
CHECKS: tuple[Callable[[Any], None], ...] = (
    lambda cfg: check_names(cfg.student),
    lambda cfg: check_pretrained(cfg.student),
    _check_teacher,
    _check_export,
    _check_checkpoint,
    lambda cfg: check_dataset_strings(dataset_strings(cfg)),
    check_sinks,
)


@dataclass
class TrainingPlan:
    """Open data sets and durations."""

    dataset: TileDataset
    tuner: Tuner | None
    timeline: Timeline
    global_batch_size: int
    data: dict[str, str]  # which tiles these are, see `identify_data`
    start: StartingPoint | None = None  # an export that both networks start from


def plan_training(cfg: Any) -> TrainingPlan:
    """Open the data sets, scale the learning rate in `cfg` and resolve all durations.

    Raises:
        UserError: if data or durations are not right.
    """
    output_dir = Path(cfg.train.output_dir)
    dataset = make_dataset(
        dataset_str=cfg.train.dataset_path, transform=build_augmentation(cfg), max_pixels=cfg.data.max_pixels
    )
    tuner = Tuner(cfg, dataset) if evaluates(cfg.tune) else None
    # Tiles of one step: of all processes and micro-batches.
    global_batch_size = cfg.train.batch_size_per_gpu * get_global_size() * cfg.train.gradient_accumulation_factor
    timeline = resolve_timeline(cfg, num_samples=len(dataset), global_batch_size=global_batch_size)
    rate = scaled_learning_rate(cfg, global_batch_size)
    if cfg.optim.lr == rate:  # as a run writes it into its config.yaml
        cfg.optim.lr = 0.0
    for line in unused_settings(cfg, processes=get_global_size()):
        logger.warning(line)
    cfg.optim.lr = rate
    logger.info(f"learning rate {cfg.optim.lr:.3g} for a batch of {global_batch_size}")
    logger.info(f"iterations: {timeline}")
    if is_main_process():
        write_text(output_dir / "timeline.json", json.dumps(asdict(timeline), indent=1) + "\n")
    start = StartingPoint.from_config(cfg, timeline)
    data = identify_data(cfg, dataset, tuner.pairs if tuner else [])
    return TrainingPlan(dataset, tuner, timeline, global_batch_size, data, start)


def build_quarantine(cfg: Any, dataset: TileDataset) -> Quarantine:
    """The report and the limit of bad tiles that the `data` section describes."""
    max_share = cfg.data.max_bad_share if cfg.data.on_bad_tile == "replace" else 0.0
    path = Path(cfg.train.output_dir, "results", "bad_tiles.jsonl")
    return Quarantine(path, num_tiles=len(dataset), max_share=max_share)


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
    masks = build_masks(cfg)
    dtype = compute_dtype(cfg.compute_precision.student.backbone.mixed_precision.param_dtype, device)
    return make_data_loader(
        dataset=TrainingView(dataset, seed=cfg.train.seed, masks=masks, order=build_order(cfg, dataset)),
        batch_size=cfg.train.batch_size_per_gpu,
        num_workers=usable_workers(
            cfg.train.num_workers, key="train.num_workers", batch_bytes=_batch_bytes(cfg, dtype)
        ),
        sampler=PositionSampler(cfg.train.batch_size_per_gpu, start=start),
        collate_fn=CollateTraining(masks, dtype),
    )


def _batch_bytes(cfg: Any, dtype: torch.dtype) -> int:
    """Of the crops of a process's batch."""
    crops = cfg.crops
    pixels = NUM_GLOBAL_CROPS * crops.global_crops_size**2 + crops.local_crops_number * crops.local_crops_size**2
    return int(cfg.train.batch_size_per_gpu * 3 * pixels * dtype.itemsize)


def build_order(cfg: Any, dataset: TileDataset) -> Callable[[int], Order] | None:
    """The order of an epoch in which groups come by weight; None where every tile comes once.

    Raises:
        UserError: if the data set does not know such groups, or the weights are not right.
    """
    if cfg.data.draw_by == "tile":
        return None
    groups = dataset.get_groups(cfg.data.draw_by)
    weights = group_weights(groups, cfg.data.draw_weights)
    check_weights(groups, weights)
    return partial(WeightedOrder, groups, weights, cfg.train.seed, Draw.ORDER)


def build_masks(cfg: Any) -> StreamMasks:
    """The masks that the `ibot` section describes."""
    size, patch = cfg.crops.global_crops_size, cfg.student.patch_size
    return StreamMasks(
        # The largest block of a mask as DINOv2 computes it, from left to right: 128 of 256 patches for 224 and 14.
        MaskingGenerator(size // patch, max_num_patches=0.5 * size // patch * size // patch),
        ratios=tuple(cfg.ibot.mask_ratio_min_max),
        probability=cfg.ibot.mask_sample_probability,
        seed=cfg.train.seed,
    )
