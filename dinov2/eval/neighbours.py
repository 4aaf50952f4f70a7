"""The nearest neighbours by cosine, exactly, in pieces that fit into memory.

Similarities are computed for some query rows and some test rows at a time, and the best so far are kept. A
neighbour is one whole number: its similarity in the upper 32 bits, its row in the lower ones, the first row the
largest. That orders all neighbours and leaves no ties: of equal similarities the one of the first row comes first,
whatever the pieces and whoever computed them.

Pieces are the same for any number of ranks, each of which compares its share of the query rows. So the neighbours are
equal to the last bit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from dinov2.distributed import all_gather_rows, get_global_rank, get_global_size
from dinov2.utils.dtype import full_float32

QUERY_PIECE = 16384  # query rows on the device at a time
TEST_PIECE = 1024  # test rows compared with them at a time: 64 MiB of similarities
TEST_BLOCK = 65536  # test rows for each pass over the query rows

_LOW = (1 << 32) - 1


class Neighbours(NamedTuple):
    """The neighbours of m test rows, the nearest first.

    Attributes:
        similarity: (m, k) float32 cosines.
        row: (m, k) int64 query rows.
    """

    similarity: Tensor
    row: Tensor


def nearest_neighbours(query: Tensor, test: Tensor, k: int, *, device: torch.device) -> Iterator[Neighbours]:
    """Find the k nearest query rows of test rows; all ranks take part.

    Args:
        query, test: (n, D), (m, D) of any length, in main memory, mapped from a file or on the device.
        k: 1 .. n.
    Yields:
        The neighbours of the next TEST_BLOCK test rows, on the device, the same on every rank.
    """
    for block in test.split(TEST_BLOCK):
        pieces = F.normalize(block.to(device), dim=1).split(TEST_PIECE)
        best = [torch.empty(len(piece), 0, dtype=torch.int64, device=device) for piece in pieces]
        for first in range(get_global_rank() * QUERY_PIECE, len(query), get_global_size() * QUERY_PIECE):
            rows = F.normalize(query[first : first + QUERY_PIECE].to(device), dim=1)
            for number, piece in enumerate(pieces):
                found = _nearest_of_piece(rows, piece, k, first)
                best[number] = _best(torch.cat((best[number], found), dim=1), k)
        yield _decode(_over_ranks(torch.cat(best), k))


def _nearest_of_piece(query: Tensor, test: Tensor, k: int, first: int) -> Tensor:
    """Neighbours (t, min(k, q)) int64 of unit test rows (t, D) among unit query rows (q, D) from row `first` on."""
    with full_float32():  # TF32 errs by 1e-3, which a temperature of 0.07 makes 1.5 % of a vote
        similarity = test @ query.T  # (t, q)
    k = min(k, len(query))
    top, columns = similarity.topk(min(k + 1, len(query)), dim=1)
    found = _encode(top[:, :k], columns[:, :k] + first)
    if top.shape[1] > k:  # where the last and the next are equal, topk has chosen any of them
        (tied,) = torch.where(top[:, k - 1] == top[:, k])
        columns = torch.arange(first, first + len(query), device=query.device)
        found[tied] = _best(_encode(similarity[tied], columns), k)
    return found


def _over_ranks(best: Tensor, k: int) -> Tensor:
    """The best of what the ranks have found, (m, k_r) each -> (m, k) on every rank."""
    return _best(all_gather_rows(best.T.contiguous()).T, k)


def _best(neighbours: Tensor, k: int) -> Tensor:
    """The k nearest of (m, c) int64, the nearest first; all where there are fewer."""
    return neighbours.topk(min(k, neighbours.shape[1]), dim=1).values


def _encode(similarity: Tensor, row: Tensor) -> Tensor:
    """Similarity (m, c) and row (m, c) or (c,) -> (m, c) int64, larger for nearer ones."""
    bits = similarity.view(torch.int32)
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)  # negative floats have the order of their bits turned round
    return (ordered.long() << 32) | (_LOW - row)


def _decode(neighbours: Tensor) -> Neighbours:
    ordered = (neighbours >> 32).int()
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return Neighbours(bits.view(torch.float32), _LOW - (neighbours & _LOW))
