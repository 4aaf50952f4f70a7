"""Transforms of single images: normalisation, and what classification evaluation shows a model."""

from collections.abc import Sequence

from torch import Tensor
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from .resizing import RandomResizedCrop, ResizeShorterSide

# Mean and standard deviation of ImageNet's RGB channels in [0, 1], which DINOv2 normalises with.
IMAGENET_DEFAULT_MEAN = (0.485, 0.456, 0.406)
IMAGENET_DEFAULT_STD = (0.229, 0.224, 0.225)


class MaybeToTensor(transforms.ToTensor):
    """Image -> (C, H, W) float in [0, 1]; a tensor stays what it is."""

    def __call__(self, pic: object) -> Tensor:
        return pic if isinstance(pic, Tensor) else super().__call__(pic)


def make_normalize_transform(
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN, std: Sequence[float] = IMAGENET_DEFAULT_STD
) -> transforms.Normalize:
    """(x - mean) / std per channel."""
    return transforms.Normalize(mean=list(mean), std=list(std))


def make_classification_train_transform(
    *,
    crop_size: int = 224,
    interpolation: InterpolationMode = InterpolationMode.BICUBIC,
    hflip_prob: float = 0.5,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> transforms.Compose:
    """Random resized crop and flip: image -> (3, crop, crop) float32."""
    steps: list[object] = [RandomResizedCrop(crop_size, interpolation=interpolation)]
    if hflip_prob > 0:
        steps.append(transforms.RandomHorizontalFlip(hflip_prob))
    return transforms.Compose([*steps, MaybeToTensor(), make_normalize_transform(mean, std)])


def make_classification_eval_transform(
    *,
    resize_size: int = 256,
    interpolation: InterpolationMode = InterpolationMode.BICUBIC,
    crop_size: int = 224,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> transforms.Compose:
    """Shorter side to `resize_size`, then the centre: image of any size -> (3, crop, crop) float32."""
    return transforms.Compose(
        [
            ResizeShorterSide(resize_size, interpolation=interpolation),
            transforms.CenterCrop(crop_size),
            MaybeToTensor(),
            make_normalize_transform(mean, std),
        ]
    )
