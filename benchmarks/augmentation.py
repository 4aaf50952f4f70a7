"""Crops per second of one core: DINOv2's augmentation with torchvision's blur, and ours with OpenCV's.

python benchmarks/augmentation.py [--tiles 40]
"""

import argparse
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from dinov2.data import DataAugmentationDINO
from dinov2.data.augmentations import BLUR_KERNEL, BLUR_SIGMA, GaussianBlur


def with_torchvision_blur(augmentation: DataAugmentationDINO) -> DataAugmentationDINO:
    """Exchange the blur in place."""
    for transfo in (augmentation.global_transfo1, augmentation.global_transfo2, augmentation.local_transfo):
        for step in transfo.transforms:
            if isinstance(step, transforms.RandomApply) and isinstance(step.transforms[0], GaussianBlur):
                step.transforms[0] = transforms.GaussianBlur(BLUR_KERNEL, sigma=BLUR_SIGMA)
    return augmentation


def crops_per_second(augmentation: DataAugmentationDINO, images: list[Image.Image]) -> float:
    """Two global and eight local crops of every image, timed."""
    torch.manual_seed(0)
    augmentation(images[0])
    started = time.perf_counter()
    for image in images:
        augmentation(image)
    return 10 * len(images) / (time.perf_counter() - started)


def main() -> None:
    """Time both, alternating, and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tiles", type=int, default=40)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 256, (256, 256, 3), dtype=np.uint8)) for _ in range(args.tiles)]
    settings = ((0.32, 1.0), (0.05, 0.32), 8)
    ours, theirs = DataAugmentationDINO(*settings), with_torchvision_blur(DataAugmentationDINO(*settings))
    rounds = [(crops_per_second(ours, images), crops_per_second(theirs, images)) for _ in range(3)]
    fast, slow = (sorted(values)[1] for values in zip(*rounds, strict=True))
    print(f"ours {fast:.0f} crops/s, torchvision's blur {slow:.0f} crops/s, ratio {fast / slow:.2f}")


if __name__ == "__main__":
    main()
