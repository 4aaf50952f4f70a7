"""What the configuration makes of the training stream."""

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dinov2.configs import complete_config
from dinov2.data import make_dataset
from dinov2.errors import UserError
from dinov2.models import vision_transformer
from dinov2.train.arguments import BACKBONES
from dinov2.train.plan import build_augmentation, build_loader, build_masks, build_order


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    """Two folders, of 2 and of 10 images."""
    made = []
    for name, count in (("few", 2), ("many", 10)):
        made.append(tmp_path / name)
        made[-1].mkdir()
        for number in range(count):
            Image.fromarray(np.full((20, 20, 3), 20 * number, np.uint8)).save(made[-1] / f"{name}_{number}.png")
    return made


def loader(folders: list[Path], **data: object) -> tuple:
    cfg = complete_config(
        {
            "train": {"dataset_path": [f"ImageFolder:root={folder}" for folder in folders], "batch_size_per_gpu": 4},
            "crops": {"global_crops_size": 14, "local_crops_size": 14, "local_crops_number": 1},
            "student": {"patch_size": 7},
            "data": data,
        }
    )
    cfg.train.num_workers = 0
    dataset = make_dataset(dataset_str=cfg.train.dataset_path, transform=build_augmentation(cfg))
    return cfg, dataset, build_loader(cfg, dataset, start=0, device=torch.device("cpu"))


def tiles(found: tuple, steps: int) -> list[int]:
    return [tile for batch in islice(found[2], steps) for tile in batch["tiles"].tolist()]


def test_every_tile_of_a_list_of_data_sets_comes_once(folders):
    assert sorted(tiles(loader(folders), 3)) == list(range(12))


@pytest.mark.parametrize(("weights", "share"), [("equal", 0.5), (1, 1 / 6), ({"0": 3}, 0.75), ({"1": 0}, 1.0)])
def test_data_sets_come_by_weight(folders, weights, share):
    drawn = np.array(tiles(loader(folders, draw_by="dataset", draw_weights=weights), 30))
    assert abs((drawn < 2).mean() - share) < 0.03
    if share < 1:
        per_tile = np.bincount(drawn[drawn >= 2] - 2, minlength=10)
        assert per_tile.max() - per_tile.min() <= 10  # an epoch more or less for each of ten epochs


def test_groups_that_are_not_known_are_named(folders):
    with pytest.raises(UserError, match="does not know the cohort"):
        loader(folders, draw_by="cohort")
    with pytest.raises(UserError, match='no group "2"'):
        loader(folders, draw_by="dataset", draw_weights={"2": 1})


def test_masks_are_those_of_the_configuration(folders):
    cfg, dataset, batches = loader(folders)
    assert build_order(cfg, dataset) is None
    masks = build_masks(complete_config({"crops": {"global_crops_size": 224}, "student": {"patch_size": 14}}))
    assert masks.generator.get_shape() == (16, 16) and masks.generator.max_num_patches == 128
    assert (masks.ratios, masks.probability) == ((0.1, 0.5), 0.5)
    batch = next(iter(batches))
    assert batch["collated_masks"].shape == (8, 4) and int(batch["n_masked_patches"]) == batch["collated_masks"].sum()


def test_the_backbones_of_the_first_look_are_those_of_the_models():
    assert set(BACKBONES) == {name for name in vars(vision_transformer) if name.startswith("vit_")}
