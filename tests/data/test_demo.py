"""The synthetic data set: its physics, its promises about classes and slides, its files."""

import csv
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from dinov2.data.demo import (
    DEMO_CLASSES,
    DemoDataset,
    SlideLook,
    colour_baselines,
    draw_tile,
    make_demo_dataset,
    make_slide_look,
)
from dinov2.data.demo.baselines import knn_balanced_accuracy
from dinov2.data.demo.canvas import BLAST, CRYPT, LYMPHOCYTE, Canvas, NucleusKind, paint_nuclei
from dinov2.data.demo.fields import smooth_noise
from dinov2.data.demo.optics import optical_density, scan, transmitted_light
from dinov2.data.demo.slides import UNFINISHED, plan_tiles, split_slides
from dinov2.data.demo.tiles import PAINTERS

SIZE = 128
FIELD_UM = 150.0


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> DemoDataset:
    """15 slides of 8 classes, 2 or 3 tiles each, drawn in this process."""
    root = tmp_path_factory.mktemp("demo") / "set"
    return make_demo_dataset(root, seed=5, num_tiles=290, num_slides=15, tile_size=96, num_workers=0)


@pytest.fixture(scope="module")
def sections() -> dict[str, list[Canvas]]:
    """Class -> 6 painted sections without neighbours, before any slide's stain and light."""
    painted: dict[str, list[Canvas]] = {tissue: [] for tissue in DEMO_CLASSES}
    for label, tissue in enumerate(DEMO_CLASSES):
        for number in range(6):
            rng = np.random.default_rng([label, number])
            canvas = Canvas.blank(rng, size=SIZE, scale=SIZE / FIELD_UM)
            PAINTERS[tissue](canvas)
            painted[tissue].append(canvas)
    return painted


def files_of(root: Path) -> dict[str, bytes]:
    """Relative path -> content of every file under a folder."""
    return {str(p.relative_to(root)): p.read_bytes() for p in root.rglob("*") if p.is_file()}


def rows_of(dataset: DemoDataset) -> list[dict[str, str]]:
    """The table of labels, one dictionary a tile."""
    with dataset.labels_csv.open(newline="") as table:
        return list(csv.DictReader(table))


# Optics


def test_twice_the_dye_is_twice_the_density() -> None:
    rng = np.random.default_rng(0)
    haematoxylin, eosin = rng.uniform(0, 1.5, size=(2, 16, 16)).astype(np.float32)
    look = make_slide_look(seed=0, slide=3)
    once = optical_density(haematoxylin, eosin=eosin, look=look)
    twice = optical_density(2 * haematoxylin, eosin=2 * eosin, look=look)
    assert once.shape == (16, 16, 3)
    assert once.min() > 0
    np.testing.assert_allclose(twice, 2 * once, rtol=1e-5)
    naive = look.thickness_um / 4 * look.eosin_strength * np.array(look.eosin_vector)
    one, zero = np.ones((4, 4), np.float32), np.zeros((4, 4), np.float32)
    np.testing.assert_allclose(optical_density(zero, eosin=one, look=look)[0, 0], naive, rtol=1e-5)


def test_light_follows_beer_lambert() -> None:
    look = make_slide_look(seed=0, slide=3)
    density = np.random.default_rng(1).uniform(0, 2, size=(8, 8, 3)).astype(np.float32)
    light = transmitted_light(density, look=look)
    np.testing.assert_allclose(light, np.array(look.white_point) * 10.0**-density, rtol=1e-4)


def test_empty_glass_has_the_white_point() -> None:
    look = make_slide_look(seed=2, slide=1)
    empty = np.zeros((8, 8), np.float32)
    light = transmitted_light(optical_density(empty, eosin=empty, look=look), look=look)
    np.testing.assert_allclose(light[3, 4], look.white_point, rtol=1e-6)


@pytest.mark.parametrize("slide", range(30))
def test_stain_vectors_are_unit_and_those_of_the_dyes(slide: int) -> None:
    look = make_slide_look(seed=1, slide=slide)
    assert np.linalg.norm(look.haematoxylin_vector) == pytest.approx(1, abs=1e-9)
    assert np.linalg.norm(look.eosin_vector) == pytest.approx(1, abs=1e-9)
    # Haematoxylin is blue because it takes red away; eosin lets red pass.
    assert look.haematoxylin_vector[0] > 0.4 > look.eosin_vector[0]
    assert all(0 < share < 1 for share in look.haematoxylin_vector + look.eosin_vector)


def test_a_look_is_a_function_of_seed_and_slide() -> None:
    looks = {make_slide_look(seed=seed, slide=slide) for seed in range(3) for slide in range(5)}
    assert len(looks) == 15
    assert make_slide_look(seed=2, slide=4) in looks


def test_scanner_blurs_and_adds_noise() -> None:
    look = make_slide_look(seed=0, slide=0)
    edge = np.full((64, 64, 3), 230, np.float32)
    edge[:, 32:] = 40
    image = scan(edge, look=look, rng=np.random.default_rng(0), focus=4.0)
    assert image.dtype == np.uint8
    across = image[:, :, 1].mean(axis=0)
    assert np.count_nonzero((across > across.min() + 15) & (across < across.max() - 15)) >= 2
    assert image[:, :16].std(axis=(0, 1)).min() > 0.2


def test_noise_fields_are_standardised_at_every_grain() -> None:
    for grain in (0.5, 2.0, 3.9, 4.1, 15.0, 17.0, 40.0):
        fields = [smooth_noise(np.random.default_rng(s), size=192, grain=grain) for s in range(8)]
        assert fields[0].shape == (192, 192)
        assert np.std(fields) == pytest.approx(1, abs=0.25), f"grain {grain}"
        assert abs(np.mean(fields)) < 0.25, f"grain {grain}"


# Tiles


@pytest.mark.parametrize("tissue", DEMO_CLASSES)
@pytest.mark.parametrize("size", [32, 96])
def test_tile_is_a_function_of_its_generator(tissue: str, size: int) -> None:
    look = make_slide_look(seed=0, slide=0)

    def draw(number: int) -> np.ndarray:
        return draw_tile(tissue, slide=look, rng=np.random.default_rng([7, number]), size=size)

    tile = draw(0)
    assert tile.shape == (size, size, 3)
    assert tile.dtype == np.uint8
    np.testing.assert_array_equal(tile, draw(0))
    assert not np.array_equal(tile, draw(1))


def test_unknown_tissue_names_the_known_ones() -> None:
    look = make_slide_look(seed=0, slide=0)
    with pytest.raises(ValueError, match=r"'BONE'.*ADI, DEB, LYM, MUC, MUS, NORM, STR, TUM"):
        draw_tile("BONE", slide=look, rng=np.random.default_rng(0))


def test_too_small_a_tile_is_refused() -> None:
    look = make_slide_look(seed=0, slide=0)
    with pytest.raises(ValueError, match="at least 32 px"):
        draw_tile("ADI", slide=look, rng=np.random.default_rng(0), size=31)


def nuclei_of(section: Canvas) -> np.ndarray:
    """(S, S) uint8: 1 where haematoxylin is as dense as in nuclei."""
    return (section.haematoxylin > 0.4).astype(np.uint8)


def coherence(section: Canvas) -> float:
    """How far gradients share one direction, 0 to 1."""
    image = cv2.GaussianBlur(section.haematoxylin + section.eosin, (0, 0), 1)
    x, y = cv2.Sobel(image, cv2.CV_32F, 1, 0), cv2.Sobel(image, cv2.CV_32F, 0, 1)
    return float(np.hypot((x * x - y * y).mean(), 2 * (x * y).mean()) / (x * x + y * y).mean())


def test_lymphocytes_fill_more_than_any_other_nuclei(sections: dict[str, list[Canvas]]) -> None:
    area = {t: np.mean([nuclei_of(s).mean() for s in drawn]) for t, drawn in sections.items()}
    assert area["LYM"] > 10 * area["ADI"]
    assert area["LYM"] > 2 * area["STR"]
    assert area["TUM"] > 2 * area["MUC"]


def test_fat_is_the_emptiest_tissue(sections: dict[str, list[Canvas]]) -> None:
    bright = {t: np.mean([(s.haematoxylin + s.eosin < 0.08).mean() for s in drawn]) for t, drawn in sections.items()}
    assert max(bright, key=lambda tissue: bright[tissue]) == "ADI"
    assert bright["ADI"] > 0.6


@pytest.mark.parametrize("scale", [1.0, 2.0])
@pytest.mark.parametrize("kind", [LYMPHOCYTE, CRYPT, BLAST])
def test_nuclei_have_their_size_in_micrometres(kind: NucleusKind, scale: float) -> None:
    size = round(160 * scale)
    canvas = Canvas.blank(np.random.default_rng(0), size=size, scale=scale)
    row, column = np.mgrid[1:8, 1:8] * 20 * scale
    paint_nuclei(canvas, kind, centres=np.stack([column.ravel(), row.ravel()], axis=-1))
    dark = canvas.haematoxylin > 0.45 * kind.chromatin
    expected_um2 = np.pi / 4 * kind.length_um**2 * np.mean(kind.aspect) * (1 + kind.spread**2)
    assert np.count_nonzero(dark) / scale**2 / 49 == pytest.approx(expected_um2, rel=0.2)


def test_muscle_is_the_most_ordered(sections: dict[str, list[Canvas]]) -> None:
    order = {t: np.median([coherence(s) for s in drawn]) for t, drawn in sections.items()}
    assert order["MUS"] > 1.5 * max(order["TUM"], order["DEB"], order["LYM"])
    assert order["STR"] > order["DEB"]


def tissue_colour(look: SlideLook, tissue: str, label: int) -> np.ndarray:
    """Mean colour of what is stained (glass left out) in two tiles: (3,) RGB."""
    pixels = []
    for number in range(2):
        rng = np.random.default_rng([look.slide, label, number])
        tile = draw_tile(tissue, slide=look, rng=rng, size=64).reshape(-1, 3)
        pixels.append(tile[tile.min(axis=1) < 200])
    return np.concatenate(pixels).mean(axis=0)


def test_slides_differ_more_in_colour_than_classes_do() -> None:
    colours = np.array(
        [
            [tissue_colour(look, tissue, label) for label, tissue in enumerate(DEMO_CLASSES)]
            for look in (make_slide_look(seed=11, slide=slide) for slide in range(16))
        ]
    )  # (slides, classes, 3)
    between_slides = colours.mean(axis=1).var(axis=0).sum()
    between_classes = colours.mean(axis=0).var(axis=0).sum()
    assert between_slides > between_classes


# The data set


def test_table_names_every_file_once(dataset: DemoDataset) -> None:
    rows = rows_of(dataset)
    assert list(rows[0]) == ["filename", "label", "class", "slide", "split"]
    on_disk = {path.name: path for path in dataset.tiles_dir.rglob("*.jpg")}
    assert len(rows) == len(on_disk) == dataset.num_tiles == 290
    for row in rows:
        path = on_disk[row["filename"]]
        assert path.parent.name == row["slide"]
        assert path.name.startswith(f"{row['slide']}_{row['class']}_")
        assert DEMO_CLASSES[int(row["label"])] == row["class"]
    image = cv2.imread(str(on_disk[rows[-1]["filename"]]))
    assert image is not None
    assert image.shape == (96, 96, 3)
    assert not (dataset.root / UNFINISHED).exists()


def test_keep_lists_are_the_splits_of_the_table(dataset: DemoDataset) -> None:
    rows = rows_of(dataset)
    for split, keep_list in dataset.keep_lists.items():
        names = keep_list.read_text().splitlines()
        assert names == [row["filename"] for row in rows if row["split"] == split]
        assert len(names) == dataset.tiles_per_split[split] > 0
    assert sum(dataset.tiles_per_split.values()) == dataset.num_tiles


def test_no_slide_is_in_two_splits(dataset: DemoDataset) -> None:
    splits: dict[str, set[str]] = {}
    for row in rows_of(dataset):
        splits.setdefault(row["slide"], set()).add(row["split"])
    assert len(splits) == 15
    assert all(len(found) == 1 for found in splits.values())
    found = sorted(split for (split,) in splits.values())
    assert found == ["pretrain"] * 9 + ["query"] * 3 + ["test"] * 3


@pytest.mark.parametrize(("num_tiles", "num_slides"), [(24, 3), (131, 4), (2400, 24), (999, 13)])
def test_slides_and_classes_share_the_tiles_equally(num_tiles: int, num_slides: int) -> None:
    plan = plan_tiles(seed=3, num_tiles=num_tiles, num_slides=num_slides)
    assert len({tile.filename for tile in plan}) == len(plan) == num_tiles
    for groups in (
        [(tile.slide, tile.tissue) for tile in plan],
        [tile.slide for tile in plan],
        [tile.tissue for tile in plan],
    ):
        _, counts = np.unique([str(group) for group in groups], return_counts=True)
        assert counts.max() - counts.min() <= 1


def test_every_split_gets_a_slide_and_the_seed_decides_which() -> None:
    assert sorted(split_slides(seed=0, num_slides=3)) == ["pretrain", "query", "test"]
    assert split_slides(seed=0, num_slides=20) == split_slides(seed=0, num_slides=20)
    assert split_slides(seed=0, num_slides=20) != split_slides(seed=1, num_slides=20)


def test_bytes_depend_on_the_seed_and_not_on_workers(tmp_path: Path) -> None:
    def write(name: str, seed: int, num_workers: int) -> dict[str, bytes]:
        root = tmp_path / name
        make_demo_dataset(root, seed=seed, num_tiles=30, num_slides=3, tile_size=64, num_workers=num_workers)
        return files_of(root)

    alone = write("alone", seed=1, num_workers=0)
    assert len(alone) == 30 + 4
    assert write("shared", seed=1, num_workers=2) == alone
    other = write("other", seed=2, num_workers=0)
    same = [name for name in alone if name.endswith(".jpg") and other.get(name) == alone[name]]
    assert same == []


def test_an_interrupted_run_does_not_look_whole_and_can_be_repeated(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"num_tiles": 24, "num_slides": 3, "tile_size": 32, "num_workers": 0}
    root = tmp_path / "set"

    def interrupt(done: int, total: int) -> None:
        assert total == 24
        if done == 6:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_demo_dataset(root, seed=9, progress=interrupt, **sizes)
    assert not (root / "labels.csv").exists()
    assert (root / UNFINISHED).exists()
    assert len(list(root.rglob("*.jpg"))) == 6

    make_demo_dataset(root, seed=4, **sizes)
    make_demo_dataset(tmp_path / "fresh", seed=4, **sizes)
    assert files_of(root) == files_of(tmp_path / "fresh")


def test_a_folder_with_other_things_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years")
    with pytest.raises(ValueError, match="not an empty folder"):
        make_demo_dataset(tmp_path, num_tiles=24, num_slides=3, tile_size=32, num_workers=0)
    assert files_of(tmp_path) == {"thesis.txt": b"three years"}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"num_slides": 2}, "num_slides must be at least 3.*pretrain, query, test"),
        ({"num_tiles": 23}, "num_tiles must be at least 24.*got 23"),
        ({"tile_size": 31}, "tile_size must be at least 32 px, got 31"),
        ({"num_workers": -1}, "num_workers must be 0"),
    ],
)
def test_bad_arguments_are_explained(tmp_path: Path, wrong: dict[str, int], message: str) -> None:
    arguments: dict[str, Any] = {"num_tiles": 24, "num_slides": 3, "tile_size": 32, **wrong}
    root = tmp_path / "set"
    with pytest.raises(ValueError, match=message):
        make_demo_dataset(root, **arguments)
    assert not root.exists()


# Baselines


def test_knn_finds_classes_that_are_apart_and_not_those_that_are_mixed() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(8), 40)
    apart = np.eye(8)[labels] + 0.1 * rng.standard_normal((320, 8))
    arguments = {"query_labels": labels, "test": apart, "test_labels": labels}
    assert knn_balanced_accuracy(apart, **arguments) == 1
    mixed = rng.standard_normal((320, 8))
    assert knn_balanced_accuracy(mixed, **arguments) < 0.3


def test_colour_alone_does_not_solve_the_task(dataset: DemoDataset) -> None:
    baselines = colour_baselines(dataset)
    assert 1 / 8 < baselines.mean_rgb < 0.5
    assert 1 / 8 < baselines.thumbnail < 0.5
