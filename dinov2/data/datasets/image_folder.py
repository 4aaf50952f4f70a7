"""Images in folders, with the first level of subfolders as classes if there are any."""

import logging
from collections.abc import Iterable, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from dinov2.data.group_names import slides_of
from dinov2.data.groups import Groups, UnknownGroupsError
from dinov2.errors import UserError, unknown_name
from dinov2.utils.other_files import explain_file, explain_folder

from .class_labels import number_classes
from .file_tiles import FileTileDataset
from .folder_walk import IMAGE_EXTENSIONS, class_of, walk_images
from .image_check import check_images
from .name_table import NameTable
from .stretches import Stretches
from .tile_groups import held_out_groups

logger = logging.getLogger("dinov2")

SPLITS = ("train", "held_out")


class ImageFolderDataset(FileTileDataset):
    """`ImageFolder:root=...`: the images of one or several folders, folder by folder, each in the order of names.

    Attributes:
        roots: the folders.
        classes: names of the first-level subfolders of all roots in alphabetical order; an empty name stands for
            images that lie in a root itself.
    """

    def __init__(
        self,
        *,
        root: str | Sequence[str],
        recursive: bool = True,
        extensions: Sequence[str] = IMAGE_EXTENSIONS,
        held_out: float | None = None,
        held_out_list: str | None = None,
        split: str | None = None,
        check: bool = False,
        **options: Any,
    ) -> None:
        """List the images.

        Args:
            recursive: also those in subfolders.
            extensions: of the files that are images, in any case.
            held_out: share of the groups of tiles to hold out, see `tile_groups`.
            held_out_list: file that names these groups; made when it is first asked for.
            split: "train" leaves the held-out tiles out, "held_out" gives only them; "train" where there is a list.
            check: decode every image at once.
            options: of `TileDataset`.
        Raises:
            UserError: if a folder is missing or has no images, the list does not fit, or an image does not decode.
        """
        super().__init__(**options)
        self.roots = _check_roots([root] if isinstance(root, str) else root, recursive=recursive)
        endings = tuple(map(_ending, extensions))
        self._slides: Groups | None = None
        self._tables = [_list(folder, recursive=recursive, extensions=endings) for folder in self.roots]
        self._targets, self.classes = number_classes(map(class_of, chain.from_iterable(self._tables)), by_value=False)
        if held_out is not None or held_out_list or split:
            self._select(self._in_split(split or "train", share=held_out, path=held_out_list))
        self._stretches = Stretches(map(len, self._tables))
        if check:
            check_images(self)

    def path_of(self, index: int) -> Path:
        """The image's path."""
        number, offset = self._stretches.find(index)
        return self.roots[number] / self._tables[number][offset]

    def name_arrays(self) -> Iterable[np.ndarray]:
        """Paths below their roots."""
        return chain.from_iterable(table.arrays() for table in self._tables)

    def get_target(self, index: int) -> int:
        """Number of the first-level subfolder's name in `classes`."""
        return int(self._targets[index])

    def get_targets(self) -> np.ndarray:
        """All class indices, (n,) int64."""
        return self._targets

    def get_groups(self, kind: str) -> Groups:
        """The slides, as far as paths tell.

        Raises:
            UnknownGroupsError: if they do not, and for other groups.
        """
        if kind != "slide":
            return super().get_groups(kind)
        if self._slides is None:
            numbers, names = self._number_slides()
            self._slides = Groups.from_column(numbers, dict(enumerate(names)))
        return self._slides

    def __len__(self) -> int:
        return len(self._stretches)

    def _number_slides(self) -> tuple[np.ndarray, list[str]]:
        """Number of the slide of each image, (n,) int64, and names of the slides.

        A slide that several roots have is one: counted twice, it could be on both sides of a split without a word.

        Raises:
            UnknownGroupsError: if paths do not tell.
        """
        try:
            numbers, names = slides_of(lambda: chain.from_iterable(self._tables))
        except UnknownGroupsError as error:
            roots = ", ".join(map(str, self.roots))
            raise UnknownGroupsError(
                f"which slide each tile of {roots:.200} is of is not known: {error}. Put the tiles of each slide into "
                "a folder of its own below the class, or name the slides in a list: CSV:file=LIST.csv:group=COLUMN",
                found=error.found,
            ) from error
        self._warn_of_shared(numbers, names)
        return numbers, names

    def _warn_of_shared(self, numbers: np.ndarray, names: list[str]) -> None:
        ends = np.cumsum([len(table) for table in self._tables])
        seen = np.zeros(len(names), np.int64)
        for part in np.split(numbers, ends[:-1]):
            seen[np.unique(part)] += 1
        shared = np.flatnonzero(seen > 1)
        if len(shared):
            logger.warning(
                f"{len(shared):,} slides, such as {names[shared[0]]!r:.120}, are in several of the folders "
                f"{', '.join(map(str, self.roots)):.300} and count as the same ones, as where folders are classes or "
                "parts of a cohort. If other cohorts number their slides alike, tell them apart: rename the slides, or "
                "name them in a list (CSV:file=LIST.csv:group=COLUMN)"
            )

    def _in_split(self, split: str, *, share: float | None, path: str | None) -> np.ndarray:
        """Which of the listed images are in a split, (n,) bool."""
        if split not in SPLITS:
            raise unknown_name("split of data set ImageFolder", split, SPLITS)
        if not path:
            raise UserError("held-out tiles are kept in a list, so that they stay the same: add held_out_list=FILE")
        numbers, groups = self._number_slides()
        listed = held_out_groups(groups, path=Path(path), share=share)
        held_out = np.array([group in listed for group in groups])[numbers]
        if held_out.all():
            raise UserError(f"list {path} holds out all groups of these tiles; none are left to train on")
        mask = held_out if split == "held_out" else ~held_out
        self._slides = Groups.from_column(numbers[mask], dict(enumerate(groups)))  # part of the tiles may say less
        return mask

    def _select(self, mask: np.ndarray) -> None:
        """Keep the images where a mask (n,) bool is true."""
        ends = np.cumsum([len(table) for table in self._tables])
        masks = np.split(mask, ends[:-1])
        self._tables = [table.select(part) for table, part in zip(self._tables, masks, strict=True)]
        self._targets = self._targets[mask]


def _list(root: Path, *, recursive: bool, extensions: tuple[str, ...]) -> NameTable:
    """Relative paths of the images of a folder."""
    names = NameTable(walk_images(root, recursive=recursive, extensions=extensions))
    if not len(names):
        where = "" if recursive else " itself; recursive=true looks into its subfolders too"
        raise UserError(f"folder {root} holds no images ({', '.join(extensions)}){where}.{explain_folder(root)}")
    return names


def _check_roots(roots: Sequence[str], *, recursive: bool) -> list[Path]:
    """The folders, all there and none of them in another, which would give its images twice."""
    paths = [Path(root) for root in roots]
    for path in paths:
        if not path.is_dir():
            raise UserError(explain_file(path) if path.exists() else f"folder {path} does not exist")
    resolved = [path.resolve() for path in paths]
    for i, path in enumerate(resolved):
        for j, other in enumerate(resolved):
            if i != j and (path == other or (recursive and path.is_relative_to(other))):
                raise UserError(f"folder {paths[i]} is in {paths[j]}: its images would be in the data set twice")
    return paths


def _ending(extension: str) -> str:
    """What a file name in lower case has to end with."""
    return f".{extension.strip().lower().removeprefix('.')}"
