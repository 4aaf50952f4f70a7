"""Splitting a folder of tiles into what trains a model, what votes and what is voted on."""

import csv
import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from dinov2.data.datasets.folder_walk import class_of, list_images
from dinov2.data.group_names import slides_of
from dinov2.data.groups import UnknownGroupsError
from dinov2.errors import UserError
from dinov2.utils.other_files import explain_file, explain_folder

logger = logging.getLogger("dinov2")

TEST_SHARE = 0.25  # of the groups
SPLITS = ("pretrain", "query", "test")


@dataclass(frozen=True)
class Tile:
    """An image and what it is used for; `classname` is empty without labels."""

    path: Path
    name: str  # unique base name in the tarballs
    classname: str
    splits: tuple[str, ...]


def tiles_of_folder(root: Path, *, seed: int) -> list[Tile]:
    """Split the images below a folder, subfolders being classes.

    Tiles of a slide stay together, as far as paths tell slides. A quarter of these groups is held out for testing; the
    others both train and, where there are classes, vote.

    Raises:
        UserError: if there are no images, or too few groups to hold some out.
    """
    if not root.is_dir():
        raise UserError(f"--data: {explain_file(root)}" if root.exists() else f"--data {root}: there is no such folder")
    names = list_images(root)
    if not names:
        raise UserError(f"--data {root}: there are no images in this folder.{explain_folder(root)}")
    classes = {class_of(name) for name in names}
    labelled = len(classes) > 1
    numbers, groups = _slides(names)
    if labelled and len(groups) < 4:
        raise UserError(f"--data {root}: {len(groups)} group(s) of tiles are too few to hold some out for testing")
    chosen = random.Random(seed).sample(range(len(groups)), round(TEST_SHARE * len(groups))) if labelled else []
    held_out = set(chosen)
    use = ("pretrain", "query") if labelled else ("pretrain",)
    return [
        Tile(
            path=(root / name).resolve(),
            name=name.replace("/", "__"),
            classname=class_of(name) if labelled else "",
            splits=("test",) if number in held_out else use,
        )
        for name, number in zip(names, numbers)
    ]


def _slides(names: list[str]) -> tuple[list[int], list[str]]:
    """Number of the slide of each tile, and the slides' names; each tile for itself, with a warning, if unknown."""
    try:
        numbers, slides = slides_of(lambda: names)
    except UnknownGroupsError as error:
        logger.warning(
            f"slides are not known: {error}. Tiles are held out one by one, so that scores are better than they would "
            "be on other slides; put the tiles of each slide into a folder of its own below the class"
        )
        return list(range(len(names))), names
    return numbers.tolist(), slides


def tiles_of_demo(root: Path) -> list[Tile]:
    """The tiles of a demo data set in its own split, which is by slide."""
    paths = {path.name: path for path in (root / "tiles").rglob("*.jpg")}
    with (root / "labels.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    return [Tile(paths[row["filename"]].resolve(), row["filename"], row["class"], (row["split"],)) for row in rows]


def write_tile_sets(tiles: Sequence[Tile], folder: Path) -> None:
    """Lay out folders of links to pack with `tar -chf`, keep lists and a table of labels.

    `pretrain/` and `downstream/` hold links; `{split}.txt` lists base names; `labels.csv` has columns
    filename, label, class.
    """
    members: dict[str, list[Tile]] = defaultdict(list)
    for tile in tiles:
        for split in tile.splits:
            members[split].append(tile)
    _link(members["pretrain"], folder / "pretrain")
    _link([tile for split in ("query", "test") for tile in members[split]], folder / "downstream")
    for split in SPLITS:
        (folder / f"{split}.txt").write_text("".join(f"{tile.name}\n" for tile in members[split]), encoding="utf-8")
    numbers = {name: number for number, name in enumerate(sorted({tile.classname for tile in tiles}))}
    with (folder / "labels.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("filename", "label", "class"))
        writer.writerows((tile.name, numbers[tile.classname], tile.classname) for tile in tiles)


def _link(tiles: Iterable[Tile], folder: Path) -> None:
    folder.mkdir(parents=True)
    for tile in tiles:
        (folder / tile.name).symlink_to(tile.path)
