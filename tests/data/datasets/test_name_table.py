"""Names in two arrays: the same names come out, in little memory, and processes can share it."""

import os
import pickle
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dinov2.data.datasets.name_table import NameTable

names_in = st.lists(st.binary(max_size=8).map(os.fsdecode))


@given(names_in)
def test_names_come_through(names):
    table = NameTable(names)
    assert list(table) == names
    assert list(pickle.loads(pickle.dumps(table))) == names
    mask = np.arange(len(names)) % 2 == 0
    assert list(table.select(mask)) == names[::2]
    for index in (-1, len(names)):
        with pytest.raises(IndexError):
            table[index]


def test_few_bytes_a_name():
    names = [f"slide_{i // 1000:05d}/x{i % 1000:04d}.png" for i in range(20_000)]
    table = NameTable(names)
    used = sum(sys.getsizeof(value) for value in vars(table).values())
    assert used < 1.2 * sum(len(name) + 8 for name in names)
