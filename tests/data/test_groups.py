"""Groups of samples: against a plain list of the group of each sample."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dinov2.data import groups as module
from dinov2.data.groups import Groups, cohort_groups, find_runs
from dinov2.errors import UserError


def groups_of(column: list[int], num_groups: int = 4) -> Groups:
    """Groups s0, s1, ... from the group number of each sample."""
    return Groups.from_column(np.array(column, np.int64), {number: f"s{number}" for number in range(num_groups)})


@settings(max_examples=150, deadline=None)
@given(column=st.lists(st.integers(0, 3), max_size=40), cuts=st.lists(st.integers(0, 40), max_size=4))
def test_runs_are_found_whatever_the_pieces(column, cuts):
    pieces = np.split(np.array(column, np.uint64), sorted(cut for cut in cuts if cut <= len(column)))
    expected = []
    for position, value in enumerate(column):
        if expected and expected[-1][0] == value:
            expected[-1][2] += 1
        else:
            expected.append([value, position, 1])
    assert np.concatenate(list(find_runs(pieces))).tolist() == expected


@settings(max_examples=150, deadline=None)
@given(column=st.lists(st.integers(0, 3), max_size=40))
def test_items_and_groups_as_in_a_plain_list(column):
    groups = groups_of(column)
    members = [[i for i, group in enumerate(column) if group == number] for number in range(4)]
    assert groups.size == len(column)
    assert groups.sizes.tolist() == [len(samples) for samples in members]
    assert groups.of(np.arange(len(column))).tolist() == column
    numbers = np.repeat(np.arange(4), groups.sizes)
    positions = np.concatenate([np.arange(size) for size in groups.sizes])
    assert groups.item(numbers, positions).tolist() == [sample for samples in members for sample in samples]
    again = Groups(groups.runs, groups.names)
    assert (again.runs == groups.runs).all() and again.names == ("s0", "s1", "s2", "s3")


def test_one_sample_at_a_time():
    groups = groups_of([1, 1, 0, 1])
    assert int(groups.item(1, 2)) == 3 and int(groups.of(2)) == 0


@pytest.mark.parametrize(("group", "position"), [(0, 1), (1, 3), (3, 0), (0, -1), (-1, 0), (4, 0)])
def test_items_that_do_not_exist(group, position):
    with pytest.raises(IndexError):
        groups_of([1, 1, 0, 1]).item(group, position)


@pytest.mark.parametrize("sample", [-1, 4])
def test_samples_that_do_not_exist(sample):
    with pytest.raises(IndexError, match=r"0 \.\. 3"):
        groups_of([1, 1, 0, 1]).of(np.array([0, sample]))


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ([[0, 0, 2], [1, 3, 1]], r"run 1 \(group 1, first sample 3, 1 samples\) does not begin where"),
        ([[0, 0, 2], [1, 1, 1]], "in none or in several"),
        ([[0, 1, 2]], "does not begin"),
        ([[0, 0, 2], [1, 2, 0]], "has no samples"),
        ([[0, 0, 2], [2, 2, 1]], "does not exist: there are 2"),
        ([[0, 0, 2], [-1, 2, 1]], "does not exist"),
        ([[0, 0, 2**63 - 1], [1, 2**63 - 1, 2**63 - 1]], "more than there can be"),
        (np.array([[0, 0, 2**64 - 1]], np.uint64), "has no samples"),
    ],
)
def test_runs_that_are_no_partition(runs, message):
    with pytest.raises(ValueError, match=message):
        Groups(runs, ["a", "b"])


def test_two_groups_of_one_name():
    with pytest.raises(ValueError, match="3 groups have the same name 'a"):
        Groups([[0, 0, 1]], ["a", "b", "a", "a"])


def test_hostile_names_stay_on_one_short_line():
    with pytest.raises(ValueError) as error:
        Groups([[0, 0, 1]], ["\x1b[31m\n" + 10**5 * "x"] * 2)
    assert "\n" not in str(error.value) and "\x1b" not in str(error.value) and len(str(error.value)) < 200


def test_a_column_is_read_in_pieces(monkeypatch):
    monkeypatch.setattr(module, "PIECE_ROWS", 3)
    assert groups_of([0, 0, 0, 0, 1, 1, 1, 0]).runs.tolist() == [[0, 0, 4], [1, 4, 3], [0, 7, 1]]


def test_a_column_with_a_number_that_has_no_name():
    with pytest.raises(UserError, match="sample 2 is of group 7"):
        Groups.from_column(np.array([5, 5, 7, 5]), {5: "five", 6: "six"})


def test_a_mapped_column_costs_no_memory(tmp_path: Path):
    column = np.memmap(tmp_path / "column", np.uint8, "w+", shape=10**7)
    column[5 * 10**6 :] = 1
    groups = Groups.from_column(column, {0: "a", 1: "b"})
    assert groups.runs.tolist() == [[0, 0, 5 * 10**6], [1, 5 * 10**6, 5 * 10**6]]


def test_more_samples_than_small_numbers_hold():
    groups = Groups([[0, 0, 2**33], [1, 2**33, 5], [0, 2**33 + 5, 2**40]], ["a", "b"])
    assert groups.sizes.tolist() == [2**33 + 2**40, 5]
    assert groups.item([0, 0, 1], [2**33 - 1, 2**33, 4]).tolist() == [2**33 - 1, 2**33 + 5, 2**33 + 4]
    assert groups.of([2**33 - 1, 2**33 + 4, 2**40]).tolist() == [0, 1, 0]


def test_data_sets_after_each_other():
    joined = Groups.concatenate([groups_of([0, 1, 0], 2), groups_of([], 0), groups_of([1, 1], 2)], prefixes="ABC")
    assert joined.names == ("A/s0", "A/s1", "C/s0", "C/s1")
    assert joined.of(np.arange(5)).tolist() == [0, 1, 0, 3, 3]
    with pytest.raises(UserError, match="2 groups of different data sets have the same name, such as 's0'"):
        Groups.concatenate([groups_of([0], 2), groups_of([1], 2)])
    assert Groups.concatenate([]).size == 0


def test_cohorts_of_joined_entries():
    entries = np.zeros((6, 5), np.uint64)
    entries[:, 4] = [3, 3, 0, 0, 0, 3]
    groups = cohort_groups(entries, {3: "C", 0: "A", 1: "empty"})
    assert groups.names == ("A", "empty", "C") and groups.sizes.tolist() == [3, 0, 3]
    with pytest.raises(UserError, match="sample 2 is of group 0"):
        cohort_groups(entries, {3: "C"})
    with pytest.raises(UserError, match=r"\(6, 4\) are of a single tar"):
        cohort_groups(entries[:, :4], {3: "C"})
