"""The crops of one image that student and teacher see.

Source: DINOv2's multi-crop augmentation (Caron et al. 2020, 2021), same operations in the same order, so
that the same random numbers give the same crops.
Differs from the reference: the blur runs in OpenCV (up to one grey level apart, many times faster); its
probabilities are the effective ones. The reference announces 1.0, 0.1 and 0.5 but applies the complement,
and its released models were trained that way.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from .resizing import RandomResizedCrop
from .transforms import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD

BLUR_KERNEL = 9  # pixels
BLUR_SIGMA = (0.1, 2.0)  # pixels
SOLARIZE_THRESHOLD = 128  # grey level from which on values are inverted: 128 becomes 127


@dataclass(frozen=True)
class AugmentationSettings:
    """Probabilities and strengths; the defaults are what DINOv2 was trained with."""

    horizontal_flip: float = 0.5
    vertical_flip: float = 0.0
    color_jitter: float = 0.8
    grayscale: float = 0.2
    solarize_global_2: float = 0.2
    blur_global_1: float = 0.0
    blur_global_2: float = 0.9
    blur_local: float = 0.5
    brightness: float = 0.4
    contrast: float = 0.4
    saturation: float = 0.2
    hue: float = 0.1
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD


@cache
def _opencv() -> Any:
    """OpenCV without threads of its own.

    A crop is too small to share out, and a thread pool does not survive the fork of a loader's worker: the
    worker would wait for its threads for ever.
    """
    import cv2

    cv2.setNumThreads(0)
    return cv2


class GaussianBlur:
    """Blur an RGB image with a random sigma."""

    def __call__(self, image: Image.Image) -> Image.Image:
        cv2 = _opencv()
        sigma = float(torch.empty(1).uniform_(*BLUR_SIGMA))
        blurred = cv2.GaussianBlur(
            np.asarray(image), (BLUR_KERNEL, BLUR_KERNEL), sigma, borderType=cv2.BORDER_REFLECT_101
        )
        return Image.fromarray(blurred)


class DataAugmentationDINO:
    """RGB image -> two global crops and some local crops, normalised."""

    def __init__(
        self,
        global_crops_scale: tuple[float, float],
        local_crops_scale: tuple[float, float],
        local_crops_number: int,
        global_crops_size: int = 224,
        local_crops_size: int = 96,
        settings: AugmentationSettings = AugmentationSettings(),
    ) -> None:
        """Store the sizes (pixels) and scales (shares of the image's area)."""
        self.local_crops_number = local_crops_number
        self.geometric_augmentation_global = _geometric(global_crops_size, global_crops_scale, settings)
        self.geometric_augmentation_local = _geometric(local_crops_size, local_crops_scale, settings)
        solarize = transforms.RandomSolarize(SOLARIZE_THRESHOLD, p=settings.solarize_global_2)
        self.global_transfo1 = _photometric(settings, settings.blur_global_1)
        self.global_transfo2 = _photometric(settings, settings.blur_global_2, solarize)
        self.local_transfo = _photometric(settings, settings.blur_local)

    def __call__(self, image: Image.Image) -> dict[str, Any]:
        """Draw the crops of an RGB image from torch's random generator.

        Returns:
            global_crops: two (3, G, G) float32; global_crops_teacher: the same two;
            local_crops: a list of (3, L, L) float32; offsets: ().
        """
        global_crops = [
            transfo(self.geometric_augmentation_global(image))
            for transfo in (self.global_transfo1, self.global_transfo2)
        ]
        local_crops: list[Tensor] = [
            self.local_transfo(self.geometric_augmentation_local(image)) for _ in range(self.local_crops_number)
        ]
        return {
            "global_crops": global_crops,
            "global_crops_teacher": global_crops,
            "local_crops": local_crops,
            "offsets": (),
        }


def _geometric(size: int, scale: tuple[float, float], settings: AugmentationSettings) -> transforms.Compose:
    """Where to look: a random area, resized, perhaps mirrored."""
    steps: list[Any] = [RandomResizedCrop(size, scale=scale, interpolation=InterpolationMode.BICUBIC)]
    steps.append(transforms.RandomHorizontalFlip(p=settings.horizontal_flip))
    if settings.vertical_flip > 0:
        steps.append(transforms.RandomVerticalFlip(p=settings.vertical_flip))
    return transforms.Compose(steps)


def _photometric(settings: AugmentationSettings, blur: float, *extra: Any) -> transforms.Compose:
    """How it looks: colours, blur, anything extra, then a normalised tensor."""
    jitter = transforms.ColorJitter(settings.brightness, settings.contrast, settings.saturation, settings.hue)
    return transforms.Compose(
        [
            transforms.RandomApply([jitter], p=settings.color_jitter),
            transforms.RandomGrayscale(p=settings.grayscale),
            transforms.RandomApply([GaussianBlur()], p=blur),
            *extra,
            transforms.ToTensor(),
            transforms.Normalize(settings.mean, settings.std, inplace=True),  # of what ToTensor has just made
        ]
    )
