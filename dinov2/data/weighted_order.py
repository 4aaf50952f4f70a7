"""The order of an epoch in which groups come as often as their weights say, computed one position at a time.

Slides and cohorts differ in size a thousandfold, and a uniform order of tiles is mostly one of the largest. Here every
position first falls on a group, by a sequence that spreads each group evenly over the epoch: a stretch of positions has
no group more than 7 times too often or too seldom for its weight, and the share of one of 2, 4, ... 64 ranks, if they
take turns, 18 times (the most that was seen in a million; by chance it would be hundreds). Then comes the next sample
of the group, in an order of its own. How often the group came before is counted exactly, without going through the
positions before, so no sample comes again before all others of its group have come.

Memory follows the number of groups; a position takes less than 0.1 ms.
"""

import difflib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dinov2.data.tar_index.errors import show_name, show_names
from dinov2.errors import UserError
from dinov2.utils.rng import derive_seed

from .groups import Groups
from .kronecker import CIRCLE, KroneckerSequence
from .permutation import Permutation, whole_order

EQUAL = "equal"
SMALL_GROUP = 256  # up to this size, sorting the whole group is faster than walking through a permutation
_SHIFT, _ARCS, _TILES = range(3)  # what a seed is derived for


class WeightedOrder:
    """A sample for each of `size` positions, as many as there are samples, chosen by a key.

    A group with more positions than samples comes around again, each time in another order; one with fewer is not
    seen completely.
    """

    def __init__(self, groups: Groups, weights: NDArray[np.float64], *key: int) -> None:
        """Prepare the order for a key of integers, such as (seed, epoch).

        Args:
            weights: (K,) how often a sample of each group is wanted, in any unit; 0 leaves a group out.
        Raises:
            UserError: if a weight is negative or not a number, or no group is left.
        """
        check_weights(groups, weights)
        drawn = np.flatnonzero((weights > 0) & (groups.sizes > 0))
        self.size = groups.size
        self._groups, self._key = groups, key
        # Each group has an arc of the circle, in an order that differs between keys.
        self._arcs = drawn[whole_order(len(drawn), *key, _ARCS)]
        self._begins = _arc_begins(weights[self._arcs])
        self._sequence = KroneckerSequence(derive_seed(*key, _SHIFT) << 1)

    def __call__(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Samples (m,) int64 at positions (m,), one after the other."""
        return np.fromiter(map(self.item, np.asarray(positions).tolist()), np.int64, len(positions))

    def item(self, position: int) -> int:
        """The sample at one position.

        Raises:
            ValueError: for a position outside 0 .. size-1.
        """
        if not 0 <= position < self.size:
            raise ValueError(f"positions must lie in 0 .. {self.size - 1}")
        place = self._sequence.point(position)
        arc = int(np.searchsorted(self._begins, np.uint64(place), side="right")) - 1
        first, stop = self._arc(arc)
        visits = self._sequence.count(position, first=first, stop=stop)
        return self._sample(int(self._arcs[arc]), visits)

    def groups(self, positions: NDArray[np.integer]) -> NDArray[np.int64]:
        """Group numbers (m,) at positions (m,), all at once, which takes a thousandth of the time that samples take."""
        places = self._sequence.points(np.asarray(positions))
        return self._arcs[np.searchsorted(self._begins, places, side="right") - 1]

    def _arc(self, arc: int) -> tuple[int, int]:
        """First place of an arc, and the one after its last."""
        return int(self._begins[arc]), int(self._begins[arc + 1]) if arc + 1 < len(self._begins) else CIRCLE

    def _sample(self, group: int, visits: int) -> int:
        """The sample of a group that comes after a number of others."""
        size = int(self._groups.sizes[group])
        rounds, position = divmod(visits, size)
        seed = derive_seed(*self._key, _TILES, group, rounds)
        own = whole_order(size, seed)[position] if size <= SMALL_GROUP else Permutation(size, seed).item(position)
        return int(self._groups.item(group, own))


def group_weights(groups: Groups, rule: object) -> NDArray[np.float64]:
    """How often a sample of each group is wanted, (K,) float64.

    Args:
        rule: "equal", every group as often as any other; a power p, in proportion to size**p (1 is uniform over
            samples, 0 is equal, 0.5 is between); or a mapping of weights by name, 1 for groups that are not named.
    Raises:
        UserError: if a group is unknown or the rule is none of these.
    """
    if isinstance(rule, Mapping):
        return _named_weights(groups, rule)
    if rule == EQUAL:
        return np.ones(len(groups.names))
    if isinstance(rule, bool) or not isinstance(rule, int | float):
        raise UserError(
            f"groups cannot be weighed by {rule!r:.120}: expected {EQUAL}, a power of their size, or a "
            "weight for each name"
        )
    with np.errstate(over="ignore"):
        return np.where(groups.sizes > 0, np.maximum(groups.sizes, 1) ** float(rule), 0.0)


def check_weights(groups: Groups, weights: NDArray[np.float64]) -> None:
    """Refuse weights (K,) from which nothing can be drawn.

    Raises:
        UserError: naming the first bad group.
    """
    if weights.shape != (len(groups.names),):
        raise ValueError(f"weights of shape {weights.shape} for {len(groups.names)} groups")
    bad = np.flatnonzero(~(np.isfinite(weights) & (weights >= 0)))
    if len(bad):
        raise UserError(
            f"group {show_name(groups.names[bad[0]])} has the weight {weights[bad[0]]:g}: expected a number from 0 on"
            + (f"; so it is for {len(bad):,} groups" if len(bad) > 1 else "")
        )
    if not ((weights > 0) & (groups.sizes > 0)).any():
        raise UserError(f"none of the {len(weights):,} groups has both samples and a weight above 0: nothing to draw")


def _named_weights(groups: Groups, rule: Mapping[object, object]) -> NDArray[np.float64]:
    """Weights (K,) by name; 1 where none is given."""
    numbers = {name: number for number, name in enumerate(groups.names)}
    weights = np.ones(len(groups.names))
    for key, weight in rule.items():
        name = str(key)  # a YAML file reads 0 as a number
        if name not in numbers:
            raise UserError(f"there is no group {show_name(name)}{_hint(name, groups.names)}")
        if isinstance(weight, bool) or not isinstance(weight, int | float):
            raise UserError(f"group {show_name(name)} has the weight {weight!r:.120}: expected a number from 0 on")
        weights[numbers[name]] = weight
    return weights


def _hint(name: str, names: Sequence[str]) -> str:
    """What may have been meant; there can be too many groups to list all."""
    nearest = difflib.get_close_matches(name, names)
    return f": did you mean {' or '.join(map(show_name, nearest))}?" if nearest else f". There are {show_names(names)}"


def _arc_begins(weights: NDArray[np.float64]) -> NDArray[np.uint64]:
    """Where each of consecutive arcs of the circle begins, (K,); their lengths are in proportion to the weights."""
    shares = weights / weights.max()
    begins = np.concatenate([[0.0], np.cumsum(shares / shares.sum())[:-1]])
    below_one = np.nextafter(1.0, 0.0)  # rounding may have reached 1, which would be the first place again
    return (np.minimum(begins, below_one) * float(CIRCLE)).astype(np.uint64)
