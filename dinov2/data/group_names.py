"""Which tiles were cut from the same slide, as far as their paths tell: one rule for folders, tars and lists.

What a single name means cannot always be seen from it: `S_3_12` may be tile 12 of slide S_3, or column 3 and row 12 of
slide S. So all paths are looked at before one is named. The numbers at the end of a name are taken off until two of
them tell tiles apart, which are the coordinates; where that would leave tiles of one slide in different groups or
nothing to tell slides by, slides are unknown. In doubt tiles are of one slide: to count tiles of one slide as several
is the mistake that makes scores too good without a word.

`docs/evaluation.md` has the table of names that are known.
"""

import logging
import re
from array import array
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from .groups import Groups, UnknownGroupsError
from .tile_paths import (
    COUNTED,
    PATIENT,
    PathParts,
    is_barcode,
    may_be_slide,
    one_line,
    says_nothing,
    split_path,
    without_lead,
)

logger = logging.getLogger("dinov2")

MOST_SINGLE = 0.75  # share of the groups that may be of one tile
MOST_NAMELESS = 0.05  # share of the tiles whose path names no slide, which count for themselves
_DIGITS = re.compile(r"\d+")
_PAIR_IN_FRONT = re.compile(r"(\d{1,18})[_-](\d{1,18})[_-](?=.*[^\W\d_])")
_OF_CLASSES = re.compile(r"\D*|\d")  # folders that tell classes rather than slides, whose names have numbers
_LEAST_STEP = 8  # pixels; numbers that move in such steps are coordinates


class _Form:
    """The names of one form: hashes of what is left of them, by how many numbers are taken off."""

    def __init__(self, numbers: int, is_cut: bool) -> None:
        self._is_cut = is_cut
        self._hashes = [array("q") for _ in range(numbers + 1)]
        self._first, self._last = array("q"), array("q")  # values of the first and last of several numbers
        self._in_front: tuple[set[int], set[int]] = (set(), set())  # values of two numbers that names begin with
        self._widths: tuple[set[int], set[int]] = (set(), set())  # how many digits these have
        self._is_padded = False  # whether the first has zeros in front
        self._is_counted = True  # whether all names are words such as "slide", which a number follows
        self._says_nothing = True
        self.depth = 0
        self.begins_with_place = False  # 512_1024_S: where the tile was, which tells tiles of many slides alike

    def add(self, names: Sequence[str], folders: tuple[str, ...]) -> None:
        """Take note of a name; see `PathParts`."""
        for hashes, name in zip(self._hashes, names):
            hashes.append(hash(name))
        if pair := _PAIR_IN_FRONT.match(names[0]):
            for values, number in zip(self._in_front, pair.groups()):
                values.add(int(number))
        rest = names[-1]
        self._is_counted = self._is_counted and bool(COUNTED.fullmatch(rest))
        self._says_nothing = self._says_nothing and says_nothing(rest, folders)
        if len(names) > 2:
            digits = _DIGITS.findall(names[0][len(rest) :])
            self._first.append(int(digits[0][:18]))
            self._last.append(int(digits[-1][:18]))
            self._widths[0].add(len(digits[0]))
            self._widths[1].add(len(digits[-1]))
            self._is_padded = self._is_padded or digits[0][:1] == "0" != digits[0]

    def decide(self) -> int:
        """Choose how many numbers to take off; the number of names that are then left, 0 where they are no slides'."""
        distinct = [len(np.unique(hashes)) for hashes in self._hashes]
        numbers = len(distinct) - 1
        if self._is_cut:
            fit = (depth for depth, hashes in enumerate(self._hashes) if not _are_single(hashes))
            self.depth = next(fit, 0)
        else:
            telling = np.cumsum([0, *(fine > coarse for fine, coarse in pairwise(distinct))])
            self.depth = min(int(np.searchsorted(telling, 2)), numbers)
            if self.depth == numbers > 1 and self._first_is_of_slide(distinct[-1]):
                self.depth = numbers - 1
        self.begins_with_place = all(_step(values) >= _LEAST_STEP for values in self._in_front)
        is_nothing = self.begins_with_place or (self.depth == numbers and self._says_nothing)
        return 0 if is_nothing else distinct[self.depth]

    def _first_is_of_slide(self, names: int) -> bool:
        """Whether the first number is of the slide, and no coordinate.

        After a word such as "slide" it is, unless it moves in steps of pixels, and of two numbers that are written
        unlike, as in 0012_3. Else the second of two has to count from 0 or 1 on without gaps, up to different ends:
        equal ends may be a rectangle of tiles.
        """
        if self._is_counted:
            return _step(set(self._first)) < _LEAST_STEP
        if len(self._hashes) > 3:
            return False
        if self._is_padded and len(self._widths[0]) == 1 and self._widths[0] != self._widths[1]:
            return True
        return (self._says_nothing or names == 1) and self._counts()

    def _counts(self) -> bool:
        _, group = np.unique(self._hashes[1], return_inverse=True)
        last, sizes = np.array(self._last), np.bincount(group)
        least, most = np.full(len(sizes), last.max()), np.zeros(len(sizes), np.int64)
        np.minimum.at(least, group, last)
        np.maximum.at(most, group, last)
        return bool((least <= 1).all() and (most - least + 1 == sizes).all() and sizes.min() < sizes.max())


class _Forms:
    """Names by their form: those of one form are read alike."""

    def __init__(self) -> None:
        self._forms: dict[tuple[int, bool], _Form] = {}

    def add(self, parts: PathParts) -> None:
        """Take note of a name."""
        key = len(parts.names) - 1, parts.is_cut
        if key not in self._forms:
            self._forms[key] = _Form(*key)
        self._forms[key].add(parts.names, parts.folders)

    def decide(self) -> int:
        """Settle what they mean; the number of names that are left."""
        return sum(form.decide() for form in self._forms.values())

    def name(self, parts: PathParts) -> str:
        """What is left of a name; nothing if that names no slide."""
        form = self._forms[len(parts.names) - 1, parts.is_cut]
        return "" if form.begins_with_place else parts.names[form.depth]


class SlideNames:
    """Names slides by paths: `look_at` all of them, `decide`, then `name` each."""

    def __init__(self, archive: str = "") -> None:
        """Begin with nothing seen.

        Args:
            archive: the file that tiles are in; its name is that of their slide where it ends in ".tiles.tar" (hs2p).
        """
        self._archive = archive.removesuffix(".tiles.tar") if archive.endswith(".tiles.tar") else ""
        self._forms, self._unled = _Forms(), _Forms()
        self._stems, self._unled_stems = array("q"), array("q")  # hashes
        self._leads = True  # whether all names begin with a number that is not needed to tell them apart
        self._firsts: set[str] = set()
        self._below: set[str] = set()
        self._pairs: set[tuple[str, str]] = set()
        self._by_file = self._by_first = self._by_below = False
        self._are_of_slides = False  # whether first folders may all be slides
        self._repeats = True  # whether all file names begin with that of the first folder: S_001/S_001_7.png

    def look_at(self, paths: Iterable[str]) -> None:
        """Take note of paths, relative to the folder or archive of the data set, with "/" between folders."""
        for path in paths:
            parts = split_path(path)
            if parts.barcode:
                continue
            if parts.is_tile:
                self._forms.add(parts)
                self._look_at_lead(path)
            if parts.folders:
                self._firsts.add(parts.folders[0])
                self._repeats = self._repeats and parts.names[0].startswith(parts.folders[0])
            if len(parts.folders) > 1:
                below = "/".join(parts.folders[1:])
                self._below.add(below)
                self._pairs.add((parts.folders[0], below))

    def _look_at_lead(self, path: str) -> None:
        """Take note of the same name without a number in front, as long as all have one."""
        unled = without_lead(path)
        self._leads = self._leads and unled != path
        if self._leads:
            self._stems.append(hash(path))
            self._unled_stems.append(hash(unled))
            self._unled.add(split_path(unled))

    def decide(self) -> None:
        """Settle what names mean."""
        distinct, unled = len(np.unique(self._stems)), len(np.unique(self._unled_stems))
        self._leads = self._leads and distinct == unled and self._unled.decide() > 0
        if self._leads:
            self._forms = self._unled
        self._by_file = self._forms.decide() > len(self._below)
        # SLIDE/CLASS/tile in place of CLASS/SLIDE/tile: the same few folders below many.
        self._by_first = len(self._pairs) > len(self._below) and len(self._firsts) > len(self._below)
        # NCT-CRC-HE-100K/TUM/tile: the same classes below the folder, or each of the folders, that everything is in.
        is_crossed = len(self._pairs) == len(self._firsts) * len(self._below) > len(self._firsts)
        self._by_below = not (is_crossed and all(map(_OF_CLASSES.fullmatch, self._below)))
        is_top = len(self._firsts) == 1 and not self._by_below
        self._are_of_slides = not is_top and all(map(may_be_slide, self._firsts))

    def name(self, path: str) -> str | None:
        """The slide of a tile; None if its path names none."""
        parts = split_path(path)
        if parts.barcode:
            return parts.barcode
        by_file = ""
        if parts.is_tile:
            by_file = self._forms.name(split_path(without_lead(path)) if self._leads else parts)
            by_file = "" if says_nothing(by_file, parts.folders) else by_file
        is_by_folder = len(parts.folders) > 1 and (self._by_first or self._by_below)
        if is_by_folder and not (by_file and self._by_file):
            return parts.folders[0] if self._by_first else "/".join(parts.folders[1:])
        of_folder = parts.folders[0] if parts.folders and self._are_of_slides else ""
        if of_folder and (not by_file or (self._repeats and len(by_file) < len(of_folder))):
            return of_folder
        return by_file or self._archive or None


def slides_of(paths: Callable[[], Iterable[str]]) -> tuple[NDArray[np.int64], list[str]]:
    """Number of the slide of each path, (n,), and the names of the slides in alphabetical order; logs what was found.

    Args:
        paths: gives all of them, each time that it is called.
    Raises:
        UnknownGroupsError: if paths do not tell.
    """
    rule = SlideNames()
    rule.look_at(paths())
    rule.decide()
    numbers: dict[str, int] = {}
    strays: list[str] = []
    found = array("q")
    for path in paths():
        name = rule.name(path)
        if name is None:
            name = one_line(path)
            strays.append(name)
        found.append(numbers.setdefault(name, len(numbers)))
    order = sorted(numbers)
    places = np.empty(len(order), np.int64)
    places[[numbers[name] for name in order]] = np.arange(len(order))
    result = places[np.frombuffer(found, np.int64)]
    try:
        summary = check_slides(np.bincount(result), order, nameless=len(strays))
    except UnknownGroupsError as error:
        raise UnknownGroupsError(str(error), found=sorted(numbers.keys() - set(strays))) from error
    logger.info(f"slides by the tiles' paths: {summary}")
    return result, order


def check_slides(sizes: NDArray[np.int64], names: Sequence[str], *, nameless: int) -> str:
    """What was found, in words.

    Args:
        sizes, names: (K) tiles of each slide, and its name.
        nameless: tiles whose path names no slide.
    Raises:
        UnknownGroupsError: it cannot be what slides are.
    """
    tiles, slides = int(sizes.sum()), len(names)
    if nameless > MOST_NAMELESS * tiles:
        raise UnknownGroupsError(f"{nameless:,} of {tiles:,} tiles have no slide in their path")
    if _is_most((sizes == 1) & [not is_barcode(name) for name in names]):
        raise UnknownGroupsError(
            f"by their paths {tiles:,} tiles would be of {slides:,} slides, nearly all with one tile, such as "
            f"{names[int(sizes.argmin())]!r:.120}"
        )
    most = int(sizes.argmax())
    apart = f"; {nameless:,} tiles without a slide in their path count as one each" if nameless else ""
    return (
        f"{tiles:,} tiles of {slides:,} slides with {sizes.min():,} to {sizes.max():,} tiles each, such as "
        f"{names[most]!r:.120}{apart}"
    )


def patients(slides: Groups) -> Groups:
    """The patients of slides that are named by barcodes of TCGA or CPTAC.

    Raises:
        UnknownGroupsError: if some are not.
    """
    found = [re.match(PATIENT, name, re.IGNORECASE) for name in slides.names]
    unknown = [name for name, match in zip(slides.names, found) if match is None]
    if unknown:
        raise UnknownGroupsError(
            f"patients are known of slides named by barcodes of TCGA and CPTAC, but {len(unknown):,} of "
            f"{len(found):,} slides have other names, such as {unknown[0]!r:.120}; a list can name patients: "
            "CSV:file=LIST.csv:group=COLUMN"
        )
    names = [match[0].upper() for match in found if match is not None]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    runs = slides.runs
    runs[:, 0] = np.array([numbers[name] for name in names])[runs[:, 0]]
    return Groups(runs, list(numbers))


def _step(values: set[int]) -> int:
    """The greatest step in which numbers move; 0 for a single one."""
    return int(np.gcd.reduce(np.diff(sorted(values)))) if len(values) > 1 else 0


def _are_single(names: array) -> bool:
    """Whether nearly all of these hashes are of one tile."""
    return _is_most(np.unique(names, return_counts=True)[1] == 1)


def _is_most(single: NDArray[np.bool_]) -> bool:
    return bool(single.mean() >= MOST_SINGLE)
