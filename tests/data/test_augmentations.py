"""Crops: shapes, the effective blur rates, and reproducibility."""

import hashlib

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from dinov2.data import DataAugmentationDINO
from dinov2.data.augmentations import SOLARIZE_THRESHOLD, AugmentationSettings, GaussianBlur
from dinov2.data.resizing import ResizeShorterSide, resize
from dinov2.data.transforms import make_classification_eval_transform, make_classification_train_transform


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


def digest(tensors) -> str:
    return hashlib.sha256(b"".join(tensor.numpy().tobytes() for tensor in tensors)).hexdigest()


def test_same_seed_same_crops_under_every_pillow(image, monkeypatch):
    """Recorded with Pillow 12.0; Pillow 13 chooses the order of its two passes, which is imitated for both orders.

    Without colours and blur, whose last bit may depend on the processor.
    """
    settings = AugmentationSettings(color_jitter=0, grayscale=0, blur_global_2=0, blur_local=0)

    def crops() -> str:
        torch.manual_seed(0)
        drawn = DataAugmentationDINO((0.3, 1.0), (0.05, 0.3), 8, 56, 28, settings)(image)
        wide, high = image.crop((0, 0, 100, 60)), image.crop((0, 0, 50, 80))
        shown = [make_classification_eval_transform(resize_size=40, crop_size=32)(tile) for tile in (wide, high, image)]
        train = make_classification_train_transform(crop_size=30)
        return digest([*drawn["global_crops"], *drawn["local_crops"], *shown, train(wide), train(high)])

    resize = Image.Image.resize
    for first_width in (None, True, False):
        if first_width is not None:
            monkeypatch.setattr(Image.Image, "resize", in_two_passes(resize, first_width=first_width))
        assert crops() == "df176025a65279dde38bb143ceb92b4c35a6b23d9e3544c4def9301633c9b349"


def in_two_passes(resize, *, first_width):
    def patched(self, size, *args, **options):
        between = (size[0], self.height) if first_width else (self.width, size[1])
        return resize(resize(self, between, *args, **options), size, *args, **options)

    return patched


def test_resizing_is_that_of_the_pillow_of_dinov2():
    """Width first: the other order is up to 25 levels away, and the digest above would not tell which it is."""
    pixels = np.zeros((64, 48, 3), np.uint8)
    pixels[::2, ::3] = 255
    tile = Image.fromarray(pixels)
    ours = np.asarray(resize(tile, (20, 40), InterpolationMode.BICUBIC))
    bicubic = Image.Resampling.BICUBIC
    assert np.array_equal(ours, tile.resize((40, 64), bicubic).resize((40, 20), bicubic))
    assert not np.array_equal(ours, tile.resize((48, 20), bicubic).resize((40, 20), bicubic))
    assert resize(tile, (64, 48), InterpolationMode.BICUBIC).size == (48, 64)


@pytest.mark.parametrize("size", [(100, 60), (60, 100), (77, 77), (31, 200)])
@pytest.mark.parametrize("shorter", [32, 60, 77, 90])
def test_the_shorter_side_is_resized_as_torchvision_does(size, shorter):
    tile = Image.new("RGB", size)
    assert ResizeShorterSide(shorter)(tile).size == transforms.Resize(shorter)(tile).size
    tensor = torch.zeros(3, *size)
    assert ResizeShorterSide(shorter)(tensor).shape == transforms.Resize(shorter)(tensor).shape


def test_solarize_inverts_from_the_threshold_on():
    levels = Image.fromarray(np.arange(256, dtype=np.uint8)[None].repeat(3, axis=0))
    solarized = np.asarray(transforms.functional.solarize(levels, SOLARIZE_THRESHOLD))[0]
    assert np.array_equal(solarized, np.minimum(np.arange(256), 255 - np.arange(256)))


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
