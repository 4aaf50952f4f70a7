"""Which tiles a run learns from and is scored on, in words that a checkpoint keeps and a run that goes on compares.

Where tiles are kept has no part in it. What it notices, for each kind of data set, stands in docs/reliability.md.
"""

from collections.abc import Iterator
from typing import Any

from dinov2.data.datasets import TileDataset
from dinov2.data.datasets.digests import TileDigest
from dinov2.data.groups import Groups
from dinov2.distributed.outcomes import on_main
from dinov2.eval.labelled import LabelledSet

from .tuning_sets import Pair

TILES, CHECKSUMS, LABELS, GROUPS = "tiles of ", "checksums of ", "labels of ", "groups of "


def identify_data(cfg: Any, dataset: TileDataset, pairs: list[Pair]) -> dict[str, str]:
    """Identities by names such as "tiles of train.dataset_path"; all ranks call it, the main process looks.

    Args:
        pairs: the data sets of the `tune` section.
    """
    return on_main(lambda: dict(_identities(cfg, dataset, pairs)))


def _identities(cfg: Any, dataset: TileDataset, pairs: list[Pair]) -> Iterator[tuple[str, str]]:
    yield from _of_tiles("train.dataset_path", dataset)
    if cfg.data.draw_by != "tile":
        yield GROUPS + "train.dataset_path", _of_groups(dataset.get_groups(cfg.data.draw_by))
    for pair in pairs:
        for side, labelled in (("query", pair.query), ("test", pair.test)):
            key = f"tune.datasets.{pair.name}.{side}" if pair.name else f"tune.{side}_dataset_path"
            yield from _of_tiles(key, labelled.dataset)
            yield LABELS + key, _of_labels(labelled)


def _of_tiles(key: str, dataset: TileDataset) -> Iterator[tuple[str, str]]:
    yield TILES + key, f"{len(dataset):,} tiles with the digest {dataset.order_digest()[:16]}"
    checksums = dataset.checksums_digest()
    if checksums is not None:
        yield CHECKSUMS + key, checksums[:16]


def _of_groups(groups: Groups) -> str:
    digest = TileDigest(*groups.names)
    digest.add_array(groups.runs)
    return f"{len(groups.names):,} groups with the digest {digest.hexdigest()[:16]}"


def _of_labels(labelled: LabelledSet) -> str:
    digest = TileDigest(*labelled.classes)
    digest.add_array(labelled.labels.numpy())
    return f"{len(labelled.classes)} classes with the digest {digest.hexdigest()[:16]}"
