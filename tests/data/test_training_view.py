"""The stream of training samples: the same for any number of workers and ranks, and after a restart."""

import io
from itertools import islice

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from dinov2.data import DataAugmentationDINO, MaskingGenerator
from dinov2.data.datasets import TileDataset, TilePlace, TileReadError
from dinov2.data.masking import StreamMasks
from dinov2.data.samplers import PositionSampler
from dinov2.data.training_view import CollateTraining, TrainingView

SIZE, SEED, GLOBAL_BATCH = 22, 7, 8
DAMAGED = frozenset({3, 4, 17})


class Tiles(TileDataset):
    """Small noisy tiles, some of which are damaged."""

    def __init__(self, damaged: frozenset[int] = frozenset()) -> None:
        super().__init__(transform=DataAugmentationDINO((0.3, 1.0), (0.1, 0.3), 2, 28, 14))
        self.damaged = damaged

    def __len__(self) -> int:
        return SIZE

    def get_image_data(self, index: int) -> bytes:
        stream = io.BytesIO()
        pixels = np.random.default_rng(index).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream, "PNG")
        return stream.getvalue()[: 60 if index in self.damaged else None]

    def get_target(self, index: int) -> int:
        return 0

    def locate(self, index: int) -> TilePlace:
        return TilePlace("tiles.tar", f"t{index}.png", 512 * index, 512 * index + 60)


def view(damaged: frozenset[int] = frozenset()) -> TrainingView:
    masks = StreamMasks(MaskingGenerator(2, max_num_patches=2), (0.3, 0.8), 0.5, SEED)
    return TrainingView(Tiles(damaged), seed=SEED, masks=masks)


def batches(workers: int, world: int, steps: int, *, start: int = 0, damaged: frozenset[int] = frozenset()) -> list:
    """`steps` batches of every rank, in rank order: [[batch of rank 0, batch of rank 1, ...], ...]."""
    stream = view(damaged)
    loaders = [
        DataLoader(
            stream,
            sampler=PositionSampler(GLOBAL_BATCH // world, start=start, rank=rank, world_size=world),
            batch_size=GLOBAL_BATCH // world,
            num_workers=workers,
            collate_fn=CollateTraining(stream.masks, torch.float32),
        )
        for rank in range(world)
    ]
    return list(zip(*(islice(loader, steps) for loader in loaders)))


def joined(ranks: tuple) -> list[torch.Tensor]:
    """What a single process would have in its batch, from the batches of all ranks."""

    def crop_major(key: str, crops: int) -> torch.Tensor:
        parts = [batch[key].unflatten(0, (crops, -1)) for batch in ranks]
        return torch.cat(parts, dim=1).flatten(0, 1)

    return [
        torch.cat([batch["positions"] for batch in ranks]),
        torch.cat([batch["tiles"] for batch in ranks]),
        crop_major("collated_global_crops", 2),
        crop_major("collated_local_crops", 2),
        crop_major("collated_masks", 2),
    ]


STEPS = 9  # 72 samples: three epochs and a bit


@pytest.fixture(scope="module")
def expected() -> list[list[torch.Tensor]]:
    return [joined(ranks) for ranks in batches(0, 1, STEPS, damaged=DAMAGED)]


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("workers", [0, 1, 2, 4])
def test_order_crops_and_masks_are_the_same_for_any_workers_and_ranks(workers, world, expected):
    found = [joined(ranks) for ranks in batches(workers, world, STEPS, damaged=DAMAGED)]
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))


def test_a_restart_goes_on_with_the_same_batches(expected):
    found = [joined(ranks) for ranks in batches(1, 2, 3, start=6 * GLOBAL_BATCH, damaged=DAMAGED)]
    assert all(torch.equal(a, b) for ours, theirs in zip(found, expected[6:]) for a, b in zip(ours, theirs))


def test_no_sample_is_missing_or_twice_in_an_epoch():
    tiles = torch.cat([joined(ranks)[1] for ranks in batches(2, 2, STEPS)]).tolist()
    epochs = [tiles[start : start + SIZE] for start in range(0, 3 * SIZE, SIZE)]
    assert all(sorted(epoch) == list(range(SIZE)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 3


def test_a_sample_differs_between_epochs_and_leaves_the_generators_alone():
    stream = view()
    torch.manual_seed(0)
    before = torch.get_rng_state()
    by_tile: dict[int, list] = {}
    for position in range(2 * SIZE):
        sample = stream[position]
        by_tile.setdefault(sample.tile, []).append(sample.crops["global_crops"][0])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(not torch.equal(first, second) for first, second in by_tile.values())


def test_bad_tiles_are_replaced_and_named():
    seen = [stream_batch for ranks in batches(0, 1, STEPS, damaged=DAMAGED) for stream_batch in ranks]
    bad = [tile for batch in seen for tile in batch["bad_tiles"]]
    assert {tile.tile for tile in bad} == DAMAGED
    assert not DAMAGED & set(torch.cat([batch["tiles"] for batch in seen]).tolist())
    assert bad[0].place == Tiles().locate(bad[0].tile)
    assert "does not decode" in bad[0].reason
    replaced = {tile.tile: {other.replaced_by for other in bad if other.tile == tile.tile} for tile in bad}
    assert any(len(others) > 1 for others in replaced.values())  # another one in another epoch


def test_an_archive_without_a_good_tile_is_an_error():
    with pytest.raises(TileReadError, match="100 tiles in a row"):
        view(frozenset(range(SIZE)))[0]
