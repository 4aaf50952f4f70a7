"""Writes a demonstration data set: tiles by slide, labels, and a split that keeps slides apart.

    output_root/tiles/slide07/slide07_TUM_0012.jpg ...    every slide holds every class
    output_root/pretrain.txt, query.txt, test.txt         one base name per line (keep lists)
    output_root/labels.csv                                filename,label,class,slide,split

Every tile is a function of (seed, slide, class, number), so the number of workers cannot change a
byte. While the set is being written the folder holds a file `UNFINISHED`; `labels.csv` comes last.
"""

import csv
import io
import math
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path

import cv2
import numpy as np

from dinov2.data.demo.optics import make_slide_look
from dinov2.data.demo.tiles import DEMO_CLASSES, MIN_TILE_SIZE, draw_tile
from dinov2.errors import UserError
from dinov2.utils.outputs import output_errors, try_folder
from dinov2.utils.pool import in_order

SPLITS = ("pretrain", "query", "test")
QUERY_SHARE = TEST_SHARE = 0.2
"""Parts of the slides, at least one slide each; the rest is for pretraining."""
UNFINISHED = "UNFINISHED"
CSV_HEADER = ("filename", "label", "class", "slide", "split")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class DemoTile:
    """One planned tile.

    Attributes:
        tissue: one of `DEMO_CLASSES`.
        slide: number of its slide.
        number: running number among the tiles of its class and slide.
        split: one of `SPLITS`.
    """

    tissue: str
    slide: int
    number: int
    split: str

    @property
    def label(self) -> int:
        """Index of the class."""
        return DEMO_CLASSES.index(self.tissue)

    @property
    def slide_name(self) -> str:
        """Name of the slide and of its folder."""
        return f"slide{self.slide:02d}"

    @property
    def filename(self) -> str:
        """Base name, unique over the whole set."""
        return f"{self.slide_name}_{self.tissue}_{self.number:04d}.jpg"


@dataclass(frozen=True)
class DemoDataset:
    """A written data set.

    Attributes:
        root: its folder.
        tiles_dir: folder of one folder per slide.
        labels_csv: the table of all tiles.
        keep_lists: split -> file of base names.
        num_tiles: tiles in all.
        num_slides: slides in all.
        tiles_per_split: split -> number of tiles.
    """

    root: Path
    tiles_dir: Path
    labels_csv: Path
    keep_lists: dict[str, Path]
    num_tiles: int
    num_slides: int
    tiles_per_split: dict[str, int]


def make_demo_dataset(
    output_root: Path,
    *,
    seed: int = 0,
    num_tiles: int = 2400,
    num_slides: int = 24,
    tile_size: int = 256,
    num_workers: int = 2,
    progress: Progress | None = None,
) -> DemoDataset:
    """Draws and writes a data set.

    Args:
        output_root: a new or empty folder, or one whose writing was interrupted.
        seed: decides everything; the same seed gives the same bytes.
        num_tiles: at least one per slide and class; slides and classes share them equally.
        num_slides: at least 3, one per split.
        tile_size: edge in pixels.
        num_workers: processes; 0 draws in this one. Scripts that start more than 0 need the usual
            `if __name__ == "__main__"`.
        progress: called with (tiles written, tiles in all) after every group of tiles.
    """
    _check_arguments(
        seed=seed,
        num_tiles=num_tiles,
        num_slides=num_slides,
        tile_size=tile_size,
        num_workers=num_workers,
    )
    root = Path(output_root)
    plan = plan_tiles(seed=seed, num_tiles=num_tiles, num_slides=num_slides)
    with output_errors(root), _unfinished(root):
        write = partial(_write_group, root=root, seed=seed, tile_size=tile_size)
        _write_tiles(root, plan, write=write, num_workers=num_workers, progress=progress)
        _write_keep_lists(root, plan)
        _write_labels(root, plan)
    return _describe(root, plan)


def plan_tiles(*, seed: int, num_tiles: int, num_slides: int) -> list[DemoTile]:
    """All tiles of a data set, by slide, class and number.

    Slides, classes, and the groups of one slide and class differ by one tile at most.
    """
    splits = split_slides(seed=seed, num_slides=num_slides)
    num_classes = len(DEMO_CLASSES)
    each, rest = divmod(num_tiles, num_slides * num_classes)
    # Down the diagonals of the table slides x classes: rows and columns fill up evenly.
    cycle = math.lcm(num_slides, num_classes)
    larger = {(k % num_slides, (k + k // cycle) % num_classes) for k in range(rest)}
    plan = []
    for group in range(num_slides * num_classes):
        slide, label = divmod(group, num_classes)
        plan += [
            DemoTile(DEMO_CLASSES[label], slide, number, splits[slide])
            for number in range(each + ((slide, label) in larger))
        ]
    return plan


def split_slides(*, seed: int, num_slides: int) -> list[str]:
    """The split of each slide, drawn by the seed; every split gets at least one slide."""
    num_query = max(1, round(QUERY_SHARE * num_slides))
    num_test = max(1, round(TEST_SHARE * num_slides))
    order = np.random.default_rng([seed, num_slides]).permutation(num_slides)
    splits = ["pretrain"] * num_slides
    for place, slide in enumerate(order):
        if place < num_query:
            splits[slide] = "query"
        elif place < num_query + num_test:
            splits[slide] = "test"
    return splits


def draw_jpeg(tile: DemoTile, *, seed: int, tile_size: int) -> bytes:
    """One tile of a data set as JPEG."""
    look = make_slide_look(seed=seed, slide=tile.slide)
    rng = np.random.default_rng([seed, tile.slide, tile.label, tile.number])
    image = draw_tile(tile.tissue, slide=look, rng=rng, size=tile_size)
    quality = [cv2.IMWRITE_JPEG_QUALITY, look.jpeg_quality]
    encoded, buffer = cv2.imencode(".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), quality)
    if not encoded:
        raise RuntimeError(f"OpenCV could not encode {tile.filename} as JPEG")
    return buffer.tobytes()


def _check_arguments(*, seed: int, num_tiles: int, num_slides: int, tile_size: int, num_workers: int) -> None:
    """Raises a UserError that names what is wrong and what would be right."""
    if seed < 0:
        raise UserError(f"seed must be 0 or more, got {seed}")
    if num_slides < len(SPLITS):
        raise UserError(
            f"num_slides must be at least {len(SPLITS)}, one for each of {', '.join(SPLITS)}; got {num_slides}"
        )
    least = num_slides * len(DEMO_CLASSES)
    if num_tiles < least:
        raise UserError(
            f"num_tiles must be at least {least}, so that each of {num_slides} slides has each of "
            f"{len(DEMO_CLASSES)} classes; got {num_tiles}. Ask for more tiles or fewer slides"
        )
    if tile_size < MIN_TILE_SIZE:
        raise UserError(f"tile_size must be at least {MIN_TILE_SIZE} px, got {tile_size}")
    if num_workers < 0:
        raise UserError(f"num_workers must be 0 (this process) or more, got {num_workers}")


@contextmanager
def _unfinished(root: Path) -> Iterator[None]:
    """Marks a folder as unfinished until the block ends well; clears what a broken run left."""
    marker = root / UNFINISHED
    if marker.exists():
        shutil.rmtree(root / "tiles", ignore_errors=True)
        (root / "labels.csv").unlink(missing_ok=True)
    elif root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise UserError(f"{root} exists and is not an empty folder; choose another one or remove it first")
    try_folder(root)
    marker.write_text("This demonstration data set is still being written, or was interrupted.\n")
    yield
    marker.unlink()


def _write_tiles(
    root: Path,
    plan: list[DemoTile],
    *,
    write: Callable[[list[DemoTile]], int],
    num_workers: int,
    progress: Progress | None,
) -> None:
    """Writes all tiles, one group of a slide and class at a time; workers share the groups."""
    groups = [list(tiles) for _, tiles in groupby(plan, key=lambda t: (t.slide, t.tissue))]
    for slide_name in dict.fromkeys(tile.slide_name for tile in plan):
        (root / "tiles" / slide_name).mkdir(parents=True)
    done = 0
    for _, count in in_order(write, groups, workers=num_workers):
        done += count
        if progress is not None:
            progress(done, len(plan))


def _write_group(tiles: list[DemoTile], *, root: Path, seed: int, tile_size: int) -> int:
    """Draws and writes some tiles; returns their number."""
    cv2.setNumThreads(1)  # there are other processes
    for tile in tiles:
        path = root / "tiles" / tile.slide_name / tile.filename
        path.write_bytes(draw_jpeg(tile, seed=seed, tile_size=tile_size))
    return len(tiles)


def _write_keep_lists(root: Path, plan: list[DemoTile]) -> None:
    """Writes the base names of each split."""
    for split in SPLITS:
        names = [f"{tile.filename}\n" for tile in plan if tile.split == split]
        _write_whole(root / f"{split}.txt", "".join(names))


def _write_labels(root: Path, plan: list[DemoTile]) -> None:
    """Writes the table of all tiles."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(CSV_HEADER)
    for tile in plan:
        writer.writerow([tile.filename, tile.label, tile.tissue, tile.slide_name, tile.split])
    _write_whole(root / "labels.csv", text.getvalue())


def _write_whole(path: Path, text: str) -> None:
    """Writes a file aside and renames it, so that it is never seen half written."""
    aside = path.with_name(path.name + ".part")
    aside.write_bytes(text.encode())
    aside.replace(path)


def _describe(root: Path, plan: list[DemoTile]) -> DemoDataset:
    """Paths and counts of a written plan."""
    return DemoDataset(
        root=root,
        tiles_dir=root / "tiles",
        labels_csv=root / "labels.csv",
        keep_lists={split: root / f"{split}.txt" for split in SPLITS},
        num_tiles=len(plan),
        num_slides=len({tile.slide for tile in plan}),
        tiles_per_split={s: sum(tile.split == s for tile in plan) for s in SPLITS},
    )
