"""Labelled data sets, and what can be wrong with them, found out before any image is read."""

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinov2.data import make_dataset
from dinov2.data.datasets import ImageNet, KNNDataset, TileDataset, UnknownGroupsError
from dinov2.data.datasets.digests import TileDigest
from dinov2.data.groups import Groups
from dinov2.data.tables import label_problem
from dinov2.data.tar_index.name_files import load_class_ids
from dinov2.errors import UserError

from .features import Features
from .leakage import find_overlap, names_with_tiles, slide_names

logger = logging.getLogger("dinov2")


@dataclass(frozen=True)
class LabelledSet:
    """A data set of tiles whose classes are known.

    Attributes:
        name: what results call it, such as "val".
        string: the data set string.
        labels: (n,) int64 class numbers.
        classes: their names; those of the set that is learnt from, once sets have been compared.
        groups: the slides or patients of the tiles; None if they are not known.
        sites: where the tiles come from; None if that is not known.
    """

    name: str
    string: str
    dataset: TileDataset
    labels: Tensor
    classes: Sequence[str]
    groups: Groups | None
    sites: Groups | None = None

    def with_transform(self, transform: Callable[..., Any]) -> TileDataset:
        """The data set with another transform."""
        dataset = copy(self.dataset)
        dataset.transform = transform
        return dataset

    def summary(self) -> dict[str, Any]:
        """What results record of it."""
        counts = self.labels.bincount(minlength=len(self.classes)).tolist()
        return {
            "dataset": self.string,
            "samples": len(self.labels),
            "samples_of_classes": dict(zip(self.classes, counts)),
            "groups": None if self.groups is None else len(self.group_names()),
            "sites": None if self.sites is None else len(names_with_tiles(self.sites)),
        }

    def identity(self) -> dict[str, Any]:
        """Which tiles these are, with what labels, slides and sites: what kept features of them have to agree with.

        It does not depend on what tiles are grouped by.

        Raises:
            UserError: if files are missing.
        """
        return {
            "dataset": self.string,
            "samples": len(self.labels),
            "tiles": self.dataset.digest(),
            "labels": sha256(self.labels.numpy().data).hexdigest(),
            "slides": _digest_of(_known_groups(self.dataset, "slide")),
            "sites": _digest_of(self.sites),
        }

    def group_names(self) -> set[str]:
        """Names of the groups that have tiles; none if groups are not known."""
        return set() if self.groups is None else names_with_tiles(self.groups)


def open_labelled(
    name: str, string: str, *, transform: Callable[..., Any], group_by: str = "auto", max_pixels: int
) -> LabelledSet:
    """Open a data set and check its labels.

    Args:
        group_by: what tiles are grouped by, one of `GROUPINGS`; "auto": by slide where the data set knows slides.
    Raises:
        UserError: if it is empty, has no labels or some that are out of range, or does not say the groups.
    """
    dataset = make_dataset(dataset_str=string, transform=transform, max_pixels=max_pixels)
    labels = dataset.get_targets()
    classes = _class_names(dataset)
    if len(labels) == 0:
        raise UserError(f"the {name} set {string} has no tiles")
    if list(classes or []) == [""]:
        raise UserError(
            f"the {name} set {string} has no labels: a list needs label=COLUMN, a folder one subfolder a class"
        )
    classes = classes or [str(number) for number in range(int(labels.max()) + 1)]
    wrong = np.flatnonzero((labels < 0) | (labels >= len(classes)))
    if len(wrong):
        raise UserError(
            f"the {name} set {string}: tile {wrong[0]:,} ({dataset.locate(int(wrong[0]))}) has the class number "
            f"{labels[wrong[0]]}, expected 0 .. {len(classes) - 1}; {len(wrong):,} of {len(labels):,} tiles are such"
        )
    _check_class_names(f"the {name} set {string}", classes, labels)
    try:
        groups = _groups(dataset, group_by, name=name)
    except UnknownGroupsError as error:
        raise UserError(f"the {name} set {string} cannot be grouped by {group_by}: {error}") from error
    sites = _known_groups(dataset, "site")
    return LabelledSet(name, string, dataset, torch.from_numpy(labels.copy()), classes, groups, sites)


def _check_class_names(which: str, classes: Sequence[str], labels: np.ndarray) -> None:
    """Refuse tiles whose label is missing or asked about: in a folder "nan", or beside the classes' folders."""
    for number in np.unique(labels).tolist():
        if problem := label_problem(classes[number], what="class"):
            count = int((labels == number).sum())
            raise UserError(f"{which}: {problem}; {count:,} of {len(labels):,} tiles are such")


def label_features(sets: Sequence[LabelledSet], values: Sequence[Tensor]) -> list[Features]:
    """Features (n, D) of sets with their labels, and with groups and sites of equal names numbered alike in all."""
    groups, sites = number_alike([one.groups for one in sets]), number_alike([one.sites for one in sets])
    return [Features(own, one.labels, *numbers) for one, own, *numbers in zip(sets, values, groups, sites)]


def number_alike(partitions: Sequence[Groups | None]) -> list[Tensor | None]:
    """For several sets the group number of each tile, (n,) int64, the same in all sets for groups of one name."""
    numbers: dict[str, int] = {}
    found: list[Tensor | None] = []
    for groups in partitions:
        if groups is None:
            found.append(None)
            continue
        common = torch.tensor([numbers.setdefault(name, len(numbers)) for name in groups.names])
        found.append(common[torch.from_numpy(groups.of(np.arange(groups.size)))])
    return found


def match_sets(
    train: LabelledSet, others: Sequence[LabelledSet], *, allow_missing_classes: bool = False
) -> list[LabelledSet]:
    """The other sets with the class numbers of the one that is learnt from, classes being matched by name.

    Warns of slides that are on both sides.

    Args:
        allow_missing_classes: only warn where another set has tiles of a class that the one to learn from knows, but
            has no tiles of: they cannot be recognised.
    Raises:
        UserError: if a set has tiles of one class only, or another set of a class that the first does not have.
    """
    for one in (train, *others):
        _check_several_classes(one)
    for other in others:
        _warn_of_shared_slides(train, other)
    matched = [_with_classes(other, train) for other in others]
    for other in matched:
        _check_taught(other, train, only_warn=allow_missing_classes)
    return matched


def _check_several_classes(labelled: LabelledSet) -> None:
    """Refuse tiles of a single class: nothing is learnt from them, and everything scores 1 on them or not at all."""
    present = labelled.labels.unique()
    if len(present) < 2:
        raise UserError(
            f"all {len(labelled.labels):,} tiles of the {labelled.name} set {labelled.string} are of the class "
            f"{labelled.classes[int(present[0])]!r}: expected two classes or more"
        )


def _warn_of_shared_slides(train: LabelledSet, other: LabelledSet) -> None:
    """Whatever tiles are grouped by: those of one slide resemble each other."""
    ours, theirs = slide_names(other.dataset) or set(), slide_names(train.dataset) or set()
    overlap = find_overlap(f"the {other.name} set", ours, f"the {train.name} set", theirs)
    if overlap is not None:
        logger.warning(f"{overlap}: if they are the same slides, scores are better than they would be on others")


def _with_classes(other: LabelledSet, train: LabelledSet) -> LabelledSet:
    numbers = {name: number for number, name in enumerate(train.classes)}
    found = [other.classes[label] for label in other.labels.unique().tolist()]
    unknown = [name for name in found if name not in numbers]
    if unknown:
        raise UserError(
            f"the {other.name} set {other.string} has tiles of {len(unknown)} classes, such as {unknown[0]!r}, that "
            f"the {train.name} set {train.string} does not have: it has {', '.join(train.classes):.300}. Label both by "
            "one table of classes"
        )
    if list(other.classes) != list(train.classes):
        logger.info(f"classes of the {other.name} set are matched with those of the {train.name} set by their names")
    table = torch.tensor([numbers.get(name, -1) for name in other.classes])
    return replace(other, labels=table[other.labels], classes=train.classes)


def _check_taught(other: LabelledSet, train: LabelledSet, *, only_warn: bool) -> None:
    """Find classes of another set that there is nothing to learn of."""
    untaught = sorted(set(other.labels.unique().tolist()) - set(train.labels.unique().tolist()))
    if not untaught:
        return
    count = int(torch.isin(other.labels, torch.tensor(untaught)).sum())
    names = ", ".join(repr(train.classes[label]) for label in untaught)
    message = (
        f"the {train.name} set {train.string} has no tile of {names:.300}, so that {count:,} of "
        f"{len(other.labels):,} tiles of the {other.name} set cannot be recognised"
    )
    if not only_warn:
        raise UserError(f"{message}. Leave them out; commands of dinov2.eval take --allow-missing-classes")
    logger.warning(message)


def _class_names(dataset: TileDataset) -> list[str] | None:
    """Names by class number; None if the data set has none."""
    if isinstance(dataset, KNNDataset):
        table = load_class_ids(dataset.class_ids_file)
        # Where the csv had no column of names, a label that is a text is its own name, as in other data sets.
        names = [label if name == f"class_{label}" and isinstance(label, str) else name for label, name in table]
        return names if len(set(names)) == len(names) else [f"{label} {name}" for label, name in table]
    if isinstance(dataset, ImageNet):
        return dataset.class_ids
    return getattr(dataset, "classes", None)


def _groups(dataset: TileDataset, group_by: str, *, name: str) -> Groups | None:
    """The groups of the tiles: of a kind that the data set has to know, or slides for "auto", if it knows them."""
    if group_by == "none":
        return None
    if group_by != "auto":
        return dataset.get_groups(group_by)
    try:
        return dataset.get_groups("slide")
    except UnknownGroupsError as error:
        logger.warning(
            f"folds and intervals take every tile of the {name} set for itself, which flatters every model: {error}"
        )
        return None


def _digest_of(groups: Groups | None) -> str | None:
    """SHA-256 over the name of each tile's group; None if groups are not known."""
    if groups is None:
        return None
    digest = TileDigest(*groups.names)
    digest.add_array(groups.runs)
    return digest.hexdigest()


def _known_groups(dataset: TileDataset, kind: str) -> Groups | None:
    """The groups of a kind; None where nothing says them."""
    try:
        return dataset.get_groups(kind)
    except UnknownGroupsError:
        return None
