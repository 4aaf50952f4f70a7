"""The nearest neighbours by cosine, exactly, in pieces that fit into memory.

Some query rows and some test rows are compared at a time, and the nearest so far are kept. A neighbour is one whole
number: how close it is in the upper 32 bits, its row in the lower ones, the first row the largest. That orders all
neighbours and leaves no ties: of equally close ones the one of the first row comes first, whatever the pieces and
whoever compared them.

Pieces are the same for any number of ranks, each of which compares its share of the query rows. So the neighbours are
equal to the last bit.

The features of a network that was hardly trained are nearly parallel: with DINOv2's initial layer scale of 1e-5 their
cosines differ by 1e-10, of which float32 shows nothing. With r any direction close to all of them, a.b is
(a - r).(b - r) + r.(b - r) and a rest that does not depend on b. These differences are taken in float64; as float32
numbers they keep their digits.
"""

from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.distributed import all_gather_rows, get_global_rank, get_global_size
from dinov2.utils.dtype import full_float32
from dinov2.utils.progress import Progress

QUERY_PIECE = 16384  # query rows on the device at a time
TEST_PIECE = 1024  # test rows compared with them at a time: 64 MiB of figures
TEST_BLOCK = 65536  # test rows for each pass over the query rows

_LOW = (1 << 32) - 1


class Neighbours(NamedTuple):
    """The neighbours of m test rows, the nearest first.

    Attributes:
        closeness: (m, k) float32, cosines less a number of the test row; -inf where the row is no neighbour, because
            too few may be one.
        row: (m, k) int64 query rows.
    """

    closeness: Tensor
    row: Tensor


class Apart(NamedTuple):
    """Groups of (n,) query and (m,) test rows, int64, within which there are no neighbours."""

    query: Tensor
    test: Tensor


def nearest_neighbours(
    query: Tensor,
    test: Tensor,
    k: int,
    *,
    device: torch.device,
    apart: Apart | None = None,
    progress: Progress | None = None,
) -> Iterator[Neighbours]:
    """Find the k nearest query rows of test rows; all ranks take part.

    Args:
        query, test: (n, D), (m, D) of any length, in main memory, mapped from a file or on the device.
        k: 1 .. n.
        apart: query rows of a test row's own group are no neighbours; None: all are.
        progress: counts test rows.
    Yields:
        The neighbours of the next TEST_BLOCK test rows, on the device, the same on every rank.
    """
    reference = _directions(query[:QUERY_PIECE], device).mean(dim=0)  # (D,) float64
    for begin, block in zip(count(0, TEST_BLOCK), test.split(TEST_BLOCK)):
        pieces = [(_directions(piece, device) - reference).float() for piece in block.split(TEST_PIECE)]
        best = [torch.empty(len(piece), 0, dtype=torch.int64, device=device) for piece in pieces]
        for first in range(get_global_rank() * QUERY_PIECE, len(query), get_global_size() * QUERY_PIECE):
            differences = _directions(query[first : first + QUERY_PIECE], device) - reference  # (q, D)
            offsets, differences = (differences @ reference).float(), differences.float().T  # (q,), (D, q)
            for number, piece in enumerate(pieces):
                with full_float32():  # TF32 errs by 1e-3, which a temperature of 0.07 makes 1.5 % of a vote
                    closeness = torch.addmm(offsets, piece, differences)  # (t, q)
                if apart is not None:
                    _hide(closeness, apart, first_test=begin + number * TEST_PIECE, first_query=first)
                best[number] = _best(torch.cat((best[number], _nearest(closeness, k, first)), dim=1), k)
            if progress is not None:
                progress.add(len(block) * len(offsets) * get_global_size() / len(query))
        yield _decode(_over_ranks(torch.cat(best), k))


def _directions(rows: Tensor, device: torch.device) -> Tensor:
    """Rows (r, D) at length 1 in float64."""
    return F.normalize(rows.to(device).double(), dim=1)


def _hide(closeness: Tensor, apart: Apart, *, first_test: int, first_query: int) -> None:
    """Put the query rows of a test row's own group infinitely far away, in place, in closeness (t, q) of some rows."""
    rows, columns = closeness.shape
    test = apart.test[first_test : first_test + rows].to(closeness.device)
    query = apart.query[first_query : first_query + columns].to(closeness.device)
    closeness.masked_fill_(test[:, None] == query, -torch.inf)


def _nearest(closeness: Tensor, k: int, first: int) -> Tensor:
    """The k nearest, or all, by closeness (t, q) to the query rows from `first` on, (t, min(k, q)) int64."""
    size = closeness.shape[1]
    k = min(k, size)
    top, columns = closeness.topk(min(k + 1, size), dim=1)
    found = _encode(top[:, :k], columns[:, :k] + first)
    if size > k:  # where the last and the next are equal, topk has chosen any of them
        (tied,) = torch.where(top[:, k - 1] == top[:, k])
        rows = torch.arange(first, first + size, device=closeness.device)
        found[tied] = _best(_encode(closeness[tied], rows), k)
    return found


def _over_ranks(best: Tensor, k: int) -> Tensor:
    """The best of what the ranks have found, (m, k_r) each -> (m, k) on every rank."""
    return _best(all_gather_rows(best.T.contiguous()).T, k)


def _best(neighbours: Tensor, k: int) -> Tensor:
    """The k nearest of (m, c) int64, the nearest first; all where there are fewer."""
    return neighbours.topk(min(k, neighbours.shape[1]), dim=1).values


def _encode(closeness: Tensor, row: Tensor) -> Tensor:
    """Closeness (m, c) and row (m, c) or (c,) -> (m, c) int64, larger for nearer ones."""
    bits = closeness.contiguous().view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # the bits of negative floats have the opposite order
    return (ordered.long() << 32) | (_LOW - row)


def _decode(neighbours: Tensor) -> Neighbours:
    ordered = (neighbours >> 32).int()
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return Neighbours(bits.view(torch.float32), _LOW - (neighbours & _LOW))
