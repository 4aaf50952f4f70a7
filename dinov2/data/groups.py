"""Which samples belong together: the tiles of a slide, of a patient, of a cohort.

Tiles of a slide lie next to each other in most archives, so groups are kept as runs of consecutive samples: memory
follows the number of runs, not of samples. Samples in any other order cost a run each, which is 16 bytes a sample
(28 from 2^31 samples on) and about 85 while they are made.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dinov2.errors import UserError

PIECE_ROWS = 1 << 20
LARGEST_SMALL = np.iinfo(np.int32).max


class UnknownGroupsError(UserError):
    """Nothing says which tiles of a data set belong together.

    Attributes:
        found: names of the groups that some of the tiles are known to be of.
    """

    def __init__(self, message: str, *, found: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.found = found


class Groups:
    """A partition of samples 0 .. size-1 into K named groups, some of which may be empty; nothing in it changes.

    Attributes:
        names: (K) distinct names; a group's place is its number.
        sizes: (K,) int64, samples of each group.
        size: samples in all.
    """

    def __init__(self, runs: ArrayLike, names: Sequence[str]) -> None:
        """Take R runs of consecutive samples.

        Args:
            runs: (R, 3) whole numbers: group, first sample, number of samples; in the order of the samples.
            names: (K) of the groups.
        Raises:
            ValueError: if a sample is in no run or in several, a group has no name, or two have the same.
        """
        groups, firsts, counts = np.asarray(runs).astype(np.int64).reshape(-1, 3).T
        self.names = tuple(names)
        _check_names(self.names)
        _check_runs(groups, firsts, counts, num_groups=len(self.names))
        self.size = int(counts.sum())
        self.sizes = np.zeros(len(self.names), np.int64)
        np.add.at(self.sizes, groups, counts)
        dtype: type[np.signedinteger] = np.int32 if self.size <= LARGEST_SMALL else np.int64
        self._groups, self._firsts = groups.astype(np.int32), firsts.astype(dtype)
        # The samples in the order of their groups: where each run begins in it, and where each group does.
        by_group = np.argsort(groups, kind="stable")
        self._sorted_firsts = firsts[by_group].astype(dtype)
        self._sorted_begins = (np.cumsum(counts[by_group]) - counts[by_group]).astype(dtype)
        self._group_begins = np.cumsum(self.sizes) - self.sizes

    @classmethod
    def from_column(cls, column: NDArray[np.integer], names: Mapping[int, str]) -> "Groups":
        """Samples that have the same number belong together.

        Args:
            column: (n,) whole numbers, which may be mapped into memory: it is read piece by piece.
            names: of the groups, by these numbers.
        Raises:
            UserError: naming the first sample whose number has no name.
        """
        keys = np.array(sorted(names), np.int64)
        pieces = (column[first : first + PIECE_ROWS] for first in range(0, len(column), PIECE_ROWS))
        table = np.concatenate(list(find_runs(pieces)))
        table[:, 0] = _places(keys, table)
        return cls(table, [names[int(key)] for key in keys])

    @classmethod
    def concatenate(cls, parts: Sequence["Groups"], *, prefixes: Sequence[str] | None = None) -> "Groups":
        """Groups of data sets that follow each other.

        Args:
            prefixes: one a data set, for names like "prefix/name".
        Raises:
            UserError: if data sets share names, which prefixes would tell apart.
        """
        runs = [np.zeros((0, 3), np.int64)]
        names: list[str] = []
        first = 0
        for number, part in enumerate(parts):
            runs.append(part.runs + np.array([len(names), first, 0]))
            names += [f"{prefixes[number]}/{name}" if prefixes else name for name in part.names]
            first += part.size
        repeated = [name for name, count in Counter(names).items() if count > 1]
        if repeated:
            raise UserError(
                f"{len(repeated):,} groups of different data sets have the same name, such as {repeated[0]!r:.120}: "
                "it is not known whether they are the same. Give the data sets different names"
            )
        return cls(np.concatenate(runs), names)

    @property
    def runs(self) -> NDArray[np.int64]:
        """(R, 3): group, first sample, number of samples, in the order of the samples."""
        counts = np.diff(self._firsts, append=np.array([self.size], self._firsts.dtype))
        return np.column_stack([self._groups, self._firsts, counts]).astype(np.int64)

    def item(self, groups: ArrayLike, positions: ArrayLike) -> NDArray[np.int64]:
        """Sample at a position within its group, in the order of the data set.

        Args:
            groups: (m,) or (), group numbers.
            positions: of the same shape, 0 .. sizes[group] - 1.
        Raises:
            IndexError: for a group or position that does not exist.
        """
        groups, positions = np.asarray(groups, np.int64), np.asarray(positions, np.int64)
        if ((positions < 0) | (groups < 0) | (positions >= self.sizes[groups])).any():
            raise IndexError("no such sample: a group's positions are 0 .. size of the group - 1")
        ranks = self._group_begins[groups] + positions
        runs = _last_not_after(self._sorted_begins, ranks)
        return self._sorted_firsts[runs] + (ranks - self._sorted_begins[runs])

    def of(self, samples: ArrayLike) -> NDArray[np.int64]:
        """Group number of each sample, of the shape of `samples`.

        Raises:
            IndexError: for a sample outside 0 .. size-1.
        """
        samples = np.asarray(samples, np.int64)
        if (samples < 0).any() or (samples >= self.size).any():
            raise IndexError(f"samples must lie in 0 .. {self.size - 1}")
        return self._groups[_last_not_after(self._firsts, samples)].astype(np.int64)


def cohort_groups(entries: NDArray[np.uint64], cohorts: Mapping[int, str]) -> Groups:
    """The cohorts of joined entries as groups, those without tiles too.

    Args:
        entries: (n, 5) uint64, which may be mapped into memory.
        cohorts: names by cohort index, the fifth column.
    Raises:
        UserError: the entries are those of a single tar, or of a cohort that has no name.
    """
    if entries.ndim != 2 or entries.shape[1] != 5:
        raise UserError(f"entries of shape {entries.shape} are of a single tar: expected (n, 5), a cohort index each")
    return Groups.from_column(entries[:, 4], cohorts)


def find_runs(pieces: Iterable[NDArray[np.integer]]) -> Iterator[NDArray[np.int64]]:
    """Runs of equal values in a long column, as they are completed.

    Args:
        pieces: of the column, (m,) each.
    Yields:
        (r, 3) int64: value, position of the first, how many.
    """
    values = firsts = np.zeros(0, np.int64)  # of the run that the next piece may continue: none or one
    end = 0
    for piece in pieces:
        piece = np.asarray(piece, np.int64)
        is_start = np.ones(len(piece), bool)
        is_start[1:] = piece[1:] != piece[:-1]
        if len(values):
            is_start[:1] = piece[:1] != values
        starts = np.flatnonzero(is_start)
        values, firsts = np.concatenate([values, piece[starts]]), np.concatenate([firsts, end + starts])
        end += len(piece)
        yield np.column_stack([values[:-1], firsts[:-1], np.diff(firsts)])
        values, firsts = values[-1:], firsts[-1:]
    yield np.column_stack([values, firsts, end - firsts])


def _check_names(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        name, count = Counter(names).most_common(1)[0]
        raise ValueError(f"{count:,} groups have the same name {name!r:.120}")


def _check_runs(
    groups: NDArray[np.int64], firsts: NDArray[np.int64], counts: NDArray[np.int64], *, num_groups: int
) -> None:
    """Refuse runs (R,) each that are no partition, naming the first bad one."""
    ends = np.cumsum(counts)  # a sum beyond 2^63 turns negative
    unknown = (groups < 0) | (groups >= num_groups)
    for bad, reason in (
        ((counts < 1) | (ends < 0), "has no samples, or more than there can be"),
        (firsts != ends - counts, "does not begin where the run before it ends, so samples are in none or in several"),
        (unknown, f"is of a group that does not exist: there are {num_groups:,}"),
    ):
        if bad.any():
            run = int(bad.argmax())
            raise ValueError(
                f"run {run:,} (group {groups[run]}, first sample {firsts[run]}, {counts[run]} samples) {reason}"
            )


def _places(keys: NDArray[np.int64], runs: NDArray[np.int64]) -> NDArray[np.int64]:
    """Where the value of each run stands among the ascending keys, (R,)."""
    unknown = ~np.isin(runs[:, 0], keys)
    if unknown.any():
        value, sample, _ = runs[unknown.argmax()]
        raise UserError(f"sample {sample:,} is of group {value}, which is none of the {len(keys):,} that have a name")
    return np.searchsorted(keys, runs[:, 0])


def _last_not_after(begins: NDArray[np.signedinteger], values: NDArray[np.int64]) -> NDArray[np.intp]:
    """Index of the last of the ascending `begins` that is no greater than each value."""
    # Values of another type would have NumPy copy all of `begins`.
    return np.searchsorted(begins, values.astype(begins.dtype), side="right") - 1
