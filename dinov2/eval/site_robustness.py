"""Whether features tell tissue or the hospital that it came from: stain, scanner and compression mark a site.

Two figures, from the k nearest query tiles of every test tile. Query tiles of the test tile's own slide or patient
are of its class and its site, and are no neighbours of it.

Site prediction: the balanced accuracy of the k-NN vote with the site as the label; the closer to chance, which is
1 / number of sites, the better. Test tiles count whose site has query tiles of other slides, since no other can be
recognised; where fewer than two sites are left there is no figure.

Robustness: neighbours of the same class from another site (S), against neighbours of another class from the same
site (O). The figure is S / (S + O) over the neighbours of all test tiles: 1 where the class alone decides what is
near, 0 where the site does. Neighbours that agree in both or in neither say nothing and do not count; where there are
no others, there is no figure. Neighbours drawn at random give 1/2 only if each site has as many tiles of each class,
so what they would give stands beside it.

Source: de Jong, Marcus, Teuwen 2025, "Current pathology foundation models are unrobust to medical center
differences": its robustness index divides neighbours of the same class by those of the same center. Counting only
those that speak for one of both, as a share between 0 and 1, is in Kömen et al. 2025, "Towards robust foundation
models for digital pathology".
"""

from dataclasses import dataclass
from math import nan

import torch
from torch import Tensor

from dinov2.distributed import get_device

from .features import Features
from .knn_votes import KnnSettings, count_votes, vote_weights
from .metrics import accuracy
from .neighbours import Apart, nearest_neighbours


@dataclass(frozen=True)
class SiteRobustness:
    """What neighbours say about sites, each figure with what chance would give; NaN where there is none.

    Attributes:
        bacc: of predicting the site; the lower the better.
        ratio: share of neighbours that speak for the class, of those that speak for class or site alone; the higher
            the better.
    """

    bacc: float
    bacc_by_chance: float
    ratio: float
    ratio_by_chance: float


def site_robustness(
    query: Features, test: Features, settings: KnnSettings = KnnSettings(), *, device: torch.device | None = None
) -> dict[int, SiteRobustness]:
    """The figures for every number of neighbours of the settings; all ranks take part.

    Args:
        query, test: with sites; labels, sites and groups have the same numbers in both. Where groups are not known in
            both, all query tiles may be neighbours.
        settings: of the vote; all query tiles take part, also where it asks for few per class.
        device: where features are compared; by default that of this process.
    Raises:
        ValueError: if sites are not known.
    """
    same_class, same_site, same_both = _possible_neighbours(query, test)  # (m,) each
    ratio_by_chance = _share(int((same_class - same_both).sum()), int((same_site - same_both).sum()))
    counted = same_site > 0
    sites = _sites(test)[counted]
    num_sites = int(max(_sites(query).max(), _sites(test).max())) + 1
    choices = len(sites.unique())
    bacc_by_chance = 1 / choices if choices > 1 else nan
    results = {}
    for k, found in _look_around(query, test, settings, num_sites=num_sites, device=device or get_device()).items():
        bacc = accuracy(found.voted[counted], sites, num_sites, average="macro") if choices > 1 else nan
        ratio = _share(found.same_class_only, found.same_site_only)
        results[k] = SiteRobustness(bacc, bacc_by_chance, ratio, ratio_by_chance)
    return results


def evaluate_sites(query: Features, test: Features, settings: KnnSettings) -> dict[str, float]:
    """Scores for the log of a training, by name: `site_bacc_{k}` and `site_ratio_{k}`; see `site_robustness`."""
    found = site_robustness(query, test, settings)
    scores = {f"site_bacc_{k}": one.bacc for k, one in found.items()}
    return scores | {f"site_ratio_{k}": one.ratio for k, one in found.items()}


@dataclass
class _Around:
    """What the k nearest of all test tiles are.

    Attributes:
        voted: (m,) int64 sites.
        same_class_only, same_site_only: neighbours of the same class and another site, and the other way about.
    """

    voted: Tensor
    same_class_only: int = 0
    same_site_only: int = 0


def _look_around(
    query: Features, test: Features, settings: KnnSettings, *, num_sites: int, device: torch.device
) -> dict[int, _Around]:
    """Vote and count for every number of neighbours."""
    around = {k: _Around(torch.empty_like(_sites(test))) for k in settings.nb_knn}
    largest = min(max(settings.nb_knn), len(query.labels))
    first = 0
    for found in nearest_neighbours(query.values, test.values, largest, device=device, apart=_apart(query, test)):
        closeness, rows = found.closeness.cpu(), found.row.cpu()  # (t, K) each
        mine = slice(first, first + len(rows))
        first = mine.stop
        weights = vote_weights(closeness, temperature=settings.temperature, vote=settings.vote)
        same_class = query.labels.cpu()[rows] == test.labels.cpu()[mine, None]
        same_site = _sites(query)[rows] == _sites(test)[mine, None]
        exist = closeness > -torch.inf
        for k, one in around.items():
            votes = count_votes(_sites(query)[rows[:, :k]], weights[:, :k], num_classes=num_sites)
            one.voted[mine] = votes.argmax(dim=1)
            one.same_class_only += int((exist & same_class & ~same_site)[:, :k].sum())
            one.same_site_only += int((exist & same_site & ~same_class)[:, :k].sum())
    return around


def _possible_neighbours(query: Features, test: Features) -> tuple[Tensor, Tensor, Tensor]:
    """How many query tiles that may be neighbours have the class, the site, and both, of each test tile, (m,) each."""
    labels, sites = (query.labels.cpu(), test.labels.cpu()), (_sites(query), _sites(test))
    apart = _apart(query, test)
    counts = []
    for columns in ((labels,), (sites,), (labels, sites)):
        count = _count_equal(*columns)
        if apart is not None:
            count -= _count_equal(*columns, (apart.query, apart.test))
        counts.append(count)
    same_class, same_site, same_both = counts
    return same_class, same_site, same_both


def _count_equal(*columns: tuple[Tensor, Tensor]) -> Tensor:
    """How many query tiles agree with each test tile in all columns of (n,) query and (m,) test numbers, (m,)."""
    size = len(columns[0][0])
    numbers = torch.zeros((), dtype=torch.int64)
    for query, test in columns:
        values, found = torch.cat((query, test)).unique(return_inverse=True)
        numbers = (numbers * len(values) + found).unique(return_inverse=True)[1]  # (n + m,)
    return numbers[:size].bincount(minlength=int(numbers.max()) + 1)[numbers[size:]]


def _apart(query: Features, test: Features) -> Apart | None:
    """The groups that are no neighbours of themselves; None where they are not known in both sets."""
    if query.groups is None or test.groups is None:
        return None
    return Apart(query.groups.cpu(), test.groups.cpu())


def _sites(features: Features) -> Tensor:
    """(n,) int64 in main memory."""
    if features.sites is None:
        raise ValueError("how robust features are against the site can be told only where sites are known")
    return features.sites.cpu()


def _share(part: int, rest: int) -> float:
    return part / (part + rest) if part + rest else nan
