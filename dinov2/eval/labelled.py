"""Labelled data sets, and what can be wrong with them, found out before any image is read."""

import logging
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dinov2.data import make_dataset
from dinov2.data.datasets import ImageNet, KNNDataset, TileDataset
from dinov2.data.groups import Groups
from dinov2.data.tar_index import load_class_ids
from dinov2.errors import UserError

logger = logging.getLogger("dinov2")

GROUPINGS = ("auto", "slide", "cohort", "none")


@dataclass(frozen=True)
class LabelledSet:
    """A data set of tiles whose classes are known.

    Attributes:
        name: what results call it, such as "val".
        string: the data set string.
        labels: (n,) int64 class numbers.
        classes: their names; those of the set that is learnt from, once sets have been compared.
        groups: the slides of the tiles; None if they are not known.
    """

    name: str
    string: str
    dataset: TileDataset
    labels: Tensor
    classes: Sequence[str]
    groups: Groups | None

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
            "groups": None if self.groups is None else int((self.groups.sizes > 0).sum()),
        }

    def group_numbers(self) -> Tensor | None:
        """(n,) int64, equal for tiles of one slide; None if slides are not known."""
        return None if self.groups is None else torch.from_numpy(self.groups.of(np.arange(self.groups.size)))

    def group_names(self) -> set[str]:
        """Names of the slides that have tiles."""
        if self.groups is None:
            return set()
        return {name for name, size in zip(self.groups.names, self.groups.sizes.tolist()) if size}


def open_labelled(
    name: str, string: str, *, transform: Callable[..., Any], group_by: str = "auto", max_pixels: int
) -> LabelledSet:
    """Open a data set and check its labels.

    Args:
        group_by: what tiles are grouped by, one of `GROUPINGS`; "auto": by slide where the data set knows slides.
    Raises:
        UserError: if it is empty, has no labels or some that are out of range.
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
    return LabelledSet(name, string, dataset, torch.from_numpy(labels.copy()), classes, _groups(dataset, group_by))


def match_sets(train: LabelledSet, others: Sequence[LabelledSet]) -> list[LabelledSet]:
    """The other sets with the class numbers of the one that is learnt from, classes being matched by name.

    Warns of slides that are on both sides.

    Raises:
        UserError: if that has one class only, or another set has tiles of a class that it does not know.
    """
    present = train.labels.unique()
    if len(present) < 2:
        raise UserError(
            f"all {len(train.labels):,} tiles of the {train.name} set {train.string} are of the class "
            f"{train.classes[int(present[0])]!r}: expected two classes or more"
        )
    for other in others:
        _warn_of_shared_groups(train, other)
    return [_with_classes(other, train) for other in others]


def _warn_of_shared_groups(train: LabelledSet, other: LabelledSet) -> None:
    names = other.group_names()
    shared = sorted(names & train.group_names())
    if shared:
        logger.warning(
            f"{len(shared):,} of {len(names):,} slides of the {other.name} set, such as {shared[0]!r:.120}, are in the "
            f"{train.name} set as well: if they are the same slides, scores are better than they would be on others"
        )


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
    matched = replace(other, labels=table[other.labels], classes=train.classes)
    untaught = set(matched.labels.unique().tolist()) - set(train.labels.unique().tolist())
    for label in sorted(untaught):
        logger.warning(
            f"no tile of the {train.name} set is of the class {train.classes[label]!r}, so that the "
            f"{int((matched.labels == label).sum()):,} of the {other.name} set cannot be recognised"
        )
    return matched


def _class_names(dataset: TileDataset) -> list[str] | None:
    """Names by class number; None if the data set has none."""
    if isinstance(dataset, KNNDataset):
        table = load_class_ids(dataset.class_ids_file)
        names = [name for _, name in table]
        return names if len(set(names)) == len(names) else [f"{label} {name}" for label, name in table]
    if isinstance(dataset, ImageNet):
        return dataset.class_ids
    return getattr(dataset, "classes", None)


def _groups(dataset: TileDataset, group_by: str) -> Groups | None:
    """The groups of the tiles: of a kind that the data set has to know, or slides for "auto", if it knows them."""
    if group_by == "none":
        return None
    try:
        return dataset.get_groups("slide" if group_by == "auto" else group_by)
    except UserError:
        if group_by != "auto":
            raise
        return None
