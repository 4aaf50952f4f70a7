"""Masks and batches are the reference's for the same random numbers."""

import hashlib
import random

import numpy as np
import pytest
import torch

from dinov2.data import MaskingGenerator, collate_data_and_cast
from dinov2.data.collate import draw_masks
from dinov2.data.masking import StreamMasks, sobol_point

REFERENCE = {0: "de8a847bff8c", 25: "a35590763c0e", 51: "b0bb2b696732", 64: "391741c7ab6b", 100: "08ca8cbc5ad0"}


def test_masks_of_the_reference():
    generator = MaskingGenerator((16, 16), max_num_patches=128.0)
    random.seed(0)
    for count, digest in [*REFERENCE.items(), (128, "a90017841add"), (128, "e05a09ab42ec")]:
        mask = generator(count)
        assert mask.sum() == count
        assert hashlib.sha1(np.packbits(mask).tobytes()).hexdigest()[:12] == digest


def test_mask_never_exceeds_its_target():
    generator = MaskingGenerator(8, max_num_patches=20)
    random.seed(1)
    assert "8x8" in repr(generator)
    for target in range(0, 64, 3):
        assert generator(target).sum() <= target


def samples(count: int, locals_: int = 3) -> list:
    def crop(value: float, size: int) -> torch.Tensor:
        return torch.full((1, size, size), value)

    return [
        (
            {
                "global_crops": [crop(10.0 * s + c, 2) for c in range(2)],
                "local_crops": [crop(10.0 * s + c, 1) for c in range(locals_)],
            },
            None,
        )
        for s in range(count)
    ]


def collate(count: int, dtype=torch.float32, locals_: int = 3) -> dict:
    random.seed(0)
    return collate_data_and_cast(
        samples(count, locals_),
        mask_ratio_tuple=(0.1, 0.5),
        mask_probability=0.5,
        dtype=dtype,
        n_tokens=256,
        mask_generator=MaskingGenerator((16, 16), max_num_patches=128.0),
    )


def test_batch_of_the_reference():
    batch = collate(4)
    assert batch["upperbound"] == 357
    assert batch["n_masked_patches"].tolist() == [333]
    assert batch["collated_masks"].sum(-1).tolist() == [97, 113, 0, 0, 76, 0, 0, 47]
    assert batch["collated_global_crops"][:, 0, 0, 0].tolist() == [0, 10, 20, 30, 1, 11, 21, 31]
    assert batch["collated_local_crops"][:, 0, 0, 0].tolist() == [0, 10, 20, 30, 1, 11, 21, 31, 2, 12, 22, 32]
    flat = batch["collated_masks"].flatten()
    assert torch.equal(batch["mask_indices_list"], flat.nonzero().flatten())
    counts = batch["collated_masks"].sum(-1)
    assert torch.allclose(batch["masks_weight"], torch.cat([torch.full((int(n),), 1 / int(n)) for n in counts if n]))


SIZES = [
    (64, 256, 4941),
    (32, 256, 2496),
    (12, 256, 967),
    (2, 256, 204),
    (1, 256, 128),
    (64, 196, 3771),
    (49, 196, 2900),
]


@pytest.mark.parametrize(("images", "patches", "upperbound"), SIZES)
def test_upperbound_depends_on_sizes_only(images, patches, upperbound):
    generator = MaskingGenerator(int(patches**0.5), max_num_patches=patches / 2)
    assert draw_masks(2 * images, (0.1, 0.5), 0.5, patches, generator)[1] == upperbound


def test_dtype_and_no_local_crops():
    batch = collate(2, dtype=torch.bfloat16, locals_=0)
    assert batch["collated_global_crops"].dtype == torch.bfloat16
    assert batch["masks_weight"].dtype == torch.float32
    assert len(batch["collated_local_crops"]) == 0


def stream_masks(probability: float = 0.5, seed: int = 0) -> StreamMasks:
    return StreamMasks(MaskingGenerator(16, max_num_patches=128), (0.1, 0.5), probability, seed)


def test_points_are_those_of_the_library_but_for_their_order():
    engine = torch.quasirandom.SobolEngine(dimension=2)
    expected = engine.draw(256, dtype=torch.float64)  # (256, 2)
    points = torch.tensor([[coordinate / 2**64 for coordinate in sobol_point(i)] for i in range(256)])
    for first in range(0, 256, 64):  # the library walks in Gray code, which stays within aligned blocks
        block = slice(first, first + 64)
        assert sorted(map(tuple, points[block].tolist())) in [
            sorted(map(tuple, expected[other : other + 64].tolist())) for other in range(0, 256, 64)
        ]


def test_masks_of_a_stream_are_spread_like_those_of_a_batch():
    masks = stream_masks(seed=3)
    for size in (8, 64):
        for start in range(0, 4 * size, size):
            counts = np.array([masks.counts(position) for position in range(start, start + size)])  # (size, 2)
            shares = np.sort(counts[counts > 0]) / 256
            assert len(shares) == size  # half of the crops
            edges = np.linspace(0.1, 0.5, size // 2 + 1)
            in_interval = np.histogram(shares + 1e-3, edges)[0]
            assert in_interval.sum() >= size - 1 and in_interval.max() <= 3
            both = ((counts > 0).sum(axis=1) == 2).sum()
            assert both == size // 4  # masks of the two crops of a sample are independent


@pytest.mark.parametrize(("size", "probability"), [(1, 0.5), (3, 0.5), (12, 0.3), (50, 0.5), (100, 0.9)])
def test_any_batch_has_nearly_its_share_of_masks(size, probability):
    masks = stream_masks(probability)
    rng = np.random.default_rng(0)
    for start in rng.integers(0, 10**9, 50).tolist():
        num_masked = sum(count > 0 for position in range(start, start + size) for count in masks.counts(position))
        assert abs(num_masked - 2 * size * probability) <= 5
    assert not any(stream_masks(0.0).counts(position) != [0, 0] for position in range(100))
    assert all(min(stream_masks(1.0).counts(position)) >= 25 for position in range(100))


def test_masks_of_a_stream_depend_on_seed_and_position():
    def drawn(position: int, seed: int) -> np.ndarray:
        random.seed(9)
        return stream_masks(seed=seed)(position)

    assert drawn(5, 0).shape == (2, 16, 16)
    assert np.array_equal(drawn(5, 0), drawn(5, 0))
    for other in (drawn(6, 0), drawn(5, 1)):
        assert not np.array_equal(drawn(5, 0), other)
    assert [int(mask.sum()) for mask in drawn(5, 0)] == stream_masks().counts(5)
