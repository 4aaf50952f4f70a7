"""Proof that an export computes what the model computes: class and patch tokens of tiles, side by side."""

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from dinov2.data.demo import DEMO_CLASSES, draw_tile, make_slide_look
from dinov2.data.transforms import make_normalize_transform
from dinov2.errors import UserError

from .request import RGB
from .tokens import Tokens

TOLERANCE = 1e-4  # largest difference between two tokens' numbers, as a share of the largest number; float32
NUM_TILES = 3
_SMALLEST_TILE = 32  # pixels; smaller images are cut out of such


class MismatchError(UserError):
    """An export that does not compute what the model does."""


def demo_tiles(size: int, mean: RGB, std: RGB) -> Tensor:
    """Synthetic H&E tiles (B, 3, S, S), each of another tissue and slide, normalised."""
    tiles = [
        draw_tile(
            DEMO_CLASSES[-1 - number],
            slide=make_slide_look(seed=0, slide=number),
            rng=np.random.default_rng(number),
            size=max(size, _SMALLEST_TILE),
        )[:size, :size]
        for number in range(NUM_TILES)
    ]
    images = torch.from_numpy(np.stack(tiles)).permute(0, 3, 1, 2).float() / 255
    return make_normalize_transform(mean, std)(images)


def largest_difference(model: nn.Module, other: Callable[[Tensor], Tokens], images: Tensor) -> float:
    """Between the tokens of two models for a batch of images (B, 3, S, S) and for its first image alone.

    Returns:
        The largest difference, as a share of the largest number of these tokens: rounding grows with it. Infinity where
        a shape differs or a number is not finite.
    """
    with torch.inference_mode():
        pairs = [pair for batch in (images, images[:1]) for pair in zip(model(batch), other(batch))]
    if any(mine.shape != theirs.shape for mine, theirs in pairs):
        return math.inf
    differences = [((mine - theirs).abs().max() / mine.abs().max()).item() for mine, theirs in pairs]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def check_equal(difference: float, library: str) -> None:
    """Refuse a difference that is more than rounding.

    Raises:
        MismatchError: says how large it is.
    """
    if difference > TOLERANCE:
        raise MismatchError(
            f"the export is not kept: class and patch tokens that {library} computes with it differ from the model's "
            f"by up to {difference:.2g} of the largest number, and {TOLERANCE:g} is allowed. Please report "
            "this with the versions of both"
        )
