"""From a list of cropped samples to the batch that a training step takes.

Source: DINOv2's collation: crops in crop-major order, mask ratios spread evenly over the masked crops.
"""

import random
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, TypedDict

import numpy as np
import torch
from torch import Tensor

from dinov2.errors import UserError

from .masking import MaskingGenerator


class Batch(TypedDict):
    """What the loader gives to a step, under DINOv2's names."""

    collated_global_crops: Tensor  # (2B, C, H, W): every sample's first crop, then every sample's second
    collated_local_crops: Tensor  # (L*B, C, h, w), likewise; (0,) without local crops
    collated_masks: Tensor  # (2B, N) bool
    mask_indices_list: Tensor  # (n,) int64 into the flattened masks, ascending
    masks_weight: Tensor  # (n,) float32, 1 / masked patches of the same crop
    upperbound: int  # most patches that these settings can mask
    n_masked_patches: Tensor  # (1,) int64, n


def collate_data_and_cast(
    samples_list: Sequence[tuple[Mapping[str, Any], Any]],
    mask_ratio_tuple: tuple[float, float],
    mask_probability: float,
    dtype: torch.dtype,
    n_tokens: int | None = None,
    mask_generator: MaskingGenerator | None = None,
) -> Batch:
    """Stack crops and draw their masks (from Python's `random`).

    Args:
        samples_list: (crops of `DataAugmentationDINO`, anything) of B samples.
        mask_ratio_tuple: smallest and largest masked share of a masked crop.
        mask_probability: share of the crops that get a mask.
        dtype: of the crops in the batch.
        n_tokens: patches of a global crop.
    """
    if n_tokens is None or mask_generator is None:
        raise UserError("collate_data_and_cast needs n_tokens and mask_generator to draw masks")
    crops = [sample[0] for sample in samples_list]
    num_crops = sum(len(crop["global_crops"]) for crop in crops)
    masks, upperbound = draw_masks(num_crops, mask_ratio_tuple, mask_probability, n_tokens, mask_generator)
    return assemble_batch(crops, masks, upperbound=upperbound, dtype=dtype)


def assemble_batch(crops: Sequence[Mapping[str, Any]], masks: Tensor, *, upperbound: int, dtype: torch.dtype) -> Batch:
    """Stack the crops of B samples beside their masks (2B, N) bool, given crop-major like the batch."""
    global_crops = _crop_major([crop["global_crops"] for crop in crops])
    local_crops = _crop_major([crop["local_crops"] for crop in crops])
    indices = masks.flatten().nonzero().flatten()  # (n,)
    weights = 1 / masks.sum(dim=-1).clamp_min(1.0)  # (2B,)
    return Batch(
        collated_global_crops=torch.stack(global_crops).to(dtype),
        collated_local_crops=torch.stack(local_crops).to(dtype) if local_crops else torch.empty(0, dtype=dtype),
        collated_masks=masks,
        mask_indices_list=indices,
        masks_weight=weights[:, None].expand_as(masks)[masks],
        upperbound=upperbound,
        n_masked_patches=torch.tensor([len(indices)]),
    )


def draw_masks(
    num_crops: int,
    ratios: tuple[float, float],
    probability: float,
    num_tokens: int,
    generator: MaskingGenerator,
) -> tuple[Tensor, int]:
    """Masks (num_crops, num_tokens) bool in random order, and the most patches they could have had.

    The range of ratios is cut into one interval per masked crop, and each of these crops draws its ratio
    from its own interval.
    """
    num_masked = int(num_crops * probability)
    edges = torch.linspace(*ratios, num_masked + 1)
    masks = [generator(int(num_tokens * random.uniform(float(low), float(high)))) for low, high in pairwise(edges)]
    masks.extend(generator(0) for _ in range(num_masked, num_crops))
    random.shuffle(masks)
    return torch.from_numpy(np.stack(masks)).flatten(1), mask_upperbound(num_masked, ratios, num_tokens)


def mask_upperbound(num_masked: int, ratios: tuple[float, float], num_tokens: int) -> int:
    """Most patches that `num_masked` crops with ratios from one interval each can mask."""
    edges = torch.linspace(*ratios, num_masked + 1)
    return sum(int(num_tokens * high) for high in edges[1:])  # in float32, as DINOv2 rounds


def _crop_major(crops: Sequence[Sequence[Tensor]]) -> list[Tensor]:
    """Per-sample lists of crops -> all samples' crop 0, all samples' crop 1, ..."""
    return [crop for same_crop in zip(*crops, strict=True) for crop in same_crop]
