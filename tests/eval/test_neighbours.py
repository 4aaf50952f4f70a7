"""Neighbours are those of a brute-force search, ties included, in pieces and over ranks."""

import numpy as np
import pytest
import torch
from eval_making import unit
from golden import normal
from ranks import run_ranks

from dinov2.eval import neighbours
from dinov2.eval.neighbours import Neighbours, nearest_neighbours

CPU = torch.device("cpu")


def search(query: torch.Tensor, test: torch.Tensor, k: int) -> Neighbours:
    blocks = list(nearest_neighbours(query, test, k, device=CPU))
    return Neighbours(*(torch.cat(parts) for parts in zip(*blocks)))


def brute_force(query: torch.Tensor, test: torch.Tensor, k: int) -> np.ndarray:
    """Rows (m, k) by cosine in float64, of equal ones the first."""
    normalize = torch.nn.functional.normalize
    similarity = normalize(test.double(), dim=1) @ normalize(query.double(), dim=1).T
    return np.argsort(-similarity.numpy().round(15), axis=1, kind="stable")[:, :k]


@pytest.fixture
def small_pieces(monkeypatch):
    for name, size in (("QUERY_PIECE", 7), ("TEST_PIECE", 3), ("TEST_BLOCK", 8)):
        monkeypatch.setattr(neighbours, name, size)


@pytest.mark.parametrize("k", [1, 5, 7, 20, 40])
def test_against_brute_force(small_pieces, k):
    query, test = normal("query", (40, 6)), normal("test", (19, 6))
    found = search(query, test, k)
    assert np.array_equal(found.row, brute_force(query, test, k))
    cosines = unit("test", 19).double() @ unit("query", 40).double().T
    expected = cosines.gather(1, found.row) - cosines.gather(1, found.row[:, :1])
    torch.testing.assert_close((found.closeness - found.closeness[:, :1]).double(), expected, atol=1e-6, rtol=0)


def test_of_equal_neighbours_the_first_is_nearer(small_pieces):
    """Many rows are the same, in and across pieces."""
    query = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])[torch.tensor([1, 0, 0, 2, 0, 1] * 6)]
    for k in range(1, 37):
        assert np.array_equal(search(query, torch.eye(2), k).row, brute_force(query, torch.eye(2), k))


def rows_and_closeness(pieces: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    neighbours.QUERY_PIECE, neighbours.TEST_PIECE, neighbours.TEST_BLOCK = pieces
    found = search(normal("query", (40, 6))[torch.arange(60) % 40], normal("test", (19, 6)), 9)
    return found.row.numpy(), found.closeness.numpy()


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_ranks_gives_the_same_bits(small_pieces, world):
    pieces = (neighbours.QUERY_PIECE, neighbours.TEST_PIECE, neighbours.TEST_BLOCK)
    row, closeness = rows_and_closeness(pieces)
    for found in run_ranks(rows_and_closeness, world, pieces):
        assert np.array_equal(found[0], row)
        assert np.array_equal(found[1], closeness)


def test_features_that_are_nearly_parallel():
    """As those of an untrained network, whose cosines are 1 in float32."""
    query, test = 1 + 1e-5 * normal("query", (200, 32)), 1 + 1e-5 * normal("test", (50, 32))
    assert np.array_equal(search(query, test, 3).row, brute_force(query, test, 3))


def test_a_mapped_file(tmp_path, small_pieces):
    query = normal("query", (40, 6))
    np.save(tmp_path / "query.npy", query.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "query.npy", mmap_mode="c"))
    assert np.array_equal(search(mapped, normal("test", (19, 6)), 4).row, search(query, normal("test", (19, 6)), 4).row)
