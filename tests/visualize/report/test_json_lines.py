"""Lines of JSON, whole, damaged and half-written."""

import json

import numpy as np
import pytest

from dinov2.visualize.report import json_lines
from dinov2.visualize.report.json_lines import read_columns, read_rows


@pytest.fixture(params=[1, 2, 4096])
def chunk(request, monkeypatch):
    """Any number of lines at a time gives the same."""
    monkeypatch.setattr(json_lines, "CHUNK", request.param)


def test_columns(tmp_path, chunk):
    lines = [
        '{"iteration": 0, "loss": 1.5, "inf": Infinity, "word": "x"}',
        '{"iteration": 10, "loss": NaN, "null": null}',
        '{"iteration": 20, "late": 7, "loss": 0.5}',
    ]
    (tmp_path / "file").write_text("\n".join(lines) + "\n")
    columns = read_columns(tmp_path / "file")
    nan, inf = np.nan, np.inf
    assert columns.iterations.tolist() == [0, 10, 20]
    expected = {"loss": [1.5, inf, 0.5], "inf": [inf, nan, nan], "null": [nan, inf, nan], "late": [nan, nan, 7]}
    assert set(columns.values) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(columns.values[name], values, err_msg=name)
    assert columns.damaged == 0
    assert columns.last("loss") == 0.5
    assert columns.last("nothing") is None


def test_damaged_lines_are_counted_and_a_line_being_written_is_not(tmp_path, chunk):
    good = ['{"iteration": 1, "a": 1}', '{"iteration": 4, "a": 4}']
    bad = ["oops", "[1]", '{"a": 2}', '{"iteration": -1}', '{"iteration": "3"}', "[" * 10_000, '{"iteration": 1e400}']
    (tmp_path / "file").write_text("\n".join([good[0], *bad, good[1]]) + '\n{"iteration": 5, "a"')
    columns = read_columns(tmp_path / "file")
    assert columns.values["a"].tolist() == [1, 4]
    assert columns.damaged == len(bad)


def test_the_last_report_of_an_iteration_counts(tmp_path, chunk):
    rows = [(0, 1.0), (10, 2.0), (20, 3.0), (10, 4.0), (20, 5.0)]
    (tmp_path / "file").write_text("".join(json.dumps({"iteration": i, "a": a}) + "\n" for i, a in rows))
    columns = read_columns(tmp_path / "file")
    assert columns.iterations.tolist() == [0, 10, 20]
    assert columns.values["a"].tolist() == [1, 4, 5]


def test_numbers_too_large_for_a_float(tmp_path):
    (tmp_path / "file").write_text(f'{{"iteration": 0, "a": 1{"0" * 400}}}\n')
    assert np.isinf(read_columns(tmp_path / "file").values["a"]).all()


def test_rows(tmp_path):
    assert list(read_rows(tmp_path / "none")) == []
    (tmp_path / "file").write_text('{"a": 1}\n\nx\n{"b": 2}')
    assert list(read_rows(tmp_path / "file")) == [{"a": 1}, None, {"b": 2}]
