"""One item of a permutation at a time, and all at once for few. (What a permutation is: test_samplers.py.)"""

import numpy as np
import pytest

from dinov2.data.permutation import Permutation, whole_order


@pytest.mark.parametrize("size", [1, 2, 7, 256, 257, 5000, 10**9])
def test_one_item_of_a_permutation_is_as_of_many(size):
    permutation = Permutation(size, 3, 1)
    positions = np.unique(np.linspace(0, size - 1, 50).astype(np.int64))
    assert [permutation.item(position) for position in positions.tolist()] == permutation(positions).tolist()
    for position in (-1, size):
        with pytest.raises(ValueError, match=r"0 \.\. "):
            permutation.item(position)


def test_whole_orders_are_orders_of_their_key():
    assert sorted(whole_order(100, 1, 2).tolist()) == list(range(100))
    assert whole_order(100, 1, 2).tolist() != whole_order(100, 1, 3).tolist()
    assert whole_order(1, 5).tolist() == [0]
