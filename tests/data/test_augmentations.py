"""Crops: shapes, the effective blur rates, and reproducibility."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms

from dinov2.data import DataAugmentationDINO
from dinov2.data.augmentations import AugmentationSettings, GaussianBlur


@pytest.fixture(scope="module")
def image():
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (80, 100, 3), dtype=np.uint8))


def test_crops(image):
    augmentation = DataAugmentationDINO((0.3, 1.0), (0.05, 0.3), 3, global_crops_size=56, local_crops_size=28)
    torch.manual_seed(0)
    crops = augmentation(image)
    assert [tuple(crop.shape) for crop in crops["global_crops"]] == [(3, 56, 56)] * 2
    assert [tuple(crop.shape) for crop in crops["local_crops"]] == [(3, 28, 28)] * 3
    assert crops["offsets"] == ()
    assert all(a is b for a, b in zip(crops["global_crops"], crops["global_crops_teacher"], strict=True))
    torch.manual_seed(0)
    again = augmentation(image)
    assert all(torch.equal(a, b) for a, b in zip(crops["local_crops"], again["local_crops"], strict=True))
    assert not torch.equal(crops["global_crops"][0], crops["global_crops"][1])


def blur_rate(transfo, image, draws=300) -> float:
    """Share of draws in which the blur changes the image, by counting calls."""
    calls = 0

    class Counting(GaussianBlur):
        def __call__(self, picture):
            nonlocal calls
            calls += 1
            return picture

    for step in transfo.transforms:
        if isinstance(step, transforms.RandomApply) and isinstance(step.transforms[0], GaussianBlur):
            step.transforms[0] = Counting()
    for _ in range(draws):
        transfo(image)
    return calls / draws


def test_effective_blur_rates_are_those_of_the_released_models(image):
    small = image.resize((16, 16))
    torch.manual_seed(0)
    augmentation = DataAugmentationDINO((0.3, 1.0), (0.05, 0.3), 1)
    rates = [
        blur_rate(t, small)
        for t in (augmentation.global_transfo1, augmentation.global_transfo2, augmentation.local_transfo)
    ]
    assert rates == pytest.approx([0.0, 0.9, 0.5], abs=0.1)
    settings = AugmentationSettings(blur_global_1=1.0, blur_global_2=0.1)
    announced = DataAugmentationDINO((0.3, 1.0), (0.05, 0.3), 1, settings=settings)
    assert blur_rate(announced.global_transfo1, small) == 1.0


def test_blur_is_torchvisions(image):
    torch.manual_seed(5)
    ours = np.asarray(GaussianBlur()(image)).astype(int)
    torch.manual_seed(5)
    theirs = np.asarray(transforms.GaussianBlur(9, sigma=(0.1, 2.0))(image)).astype(int)
    assert np.abs(ours - theirs).max() <= 1
    assert np.abs(ours - np.asarray(image).astype(int)).max() > 5


def test_solarize_only_in_the_second_crop_and_flips(image):
    plain = {"color_jitter": 0.0, "grayscale": 0.0, "blur_global_2": 0.0, "mean": (0.0,) * 3, "std": (1.0,) * 3}
    settings = AugmentationSettings(solarize_global_2=1.0, horizontal_flip=0.0, **plain)
    augmentation = DataAugmentationDINO((1.0, 1.0), (0.3, 0.3), 0, global_crops_size=56, settings=settings)
    square = image.crop((0, 0, 80, 80)).resize((56, 56))
    torch.manual_seed(0)
    first, second = augmentation(square)["global_crops"]
    assert float(first.max()) > 0.6
    assert float(second.max()) < 0.51
    flipped = DataAugmentationDINO(
        (1.0, 1.0),
        (0.3, 0.3),
        0,
        global_crops_size=56,
        settings=AugmentationSettings(solarize_global_2=0.0, horizontal_flip=0.0, vertical_flip=1.0, **plain),
    )(square)["global_crops"][0]
    expected = transforms.functional.to_tensor(square).flip(1)
    # A random area of full scale may still differ from a square in aspect; when it does not, it is the flip.
    assert flipped.shape == expected.shape
    assert float((flipped - expected).abs().mean()) < float((flipped - expected.flip(1)).abs().mean())
