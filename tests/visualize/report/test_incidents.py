"""Bad tiles and steps that were not taken, as tables."""

import json

import pytest

from dinov2.visualize.report.incidents import bad_tile_tables, nonfinite_tables
from dinov2.visualize.report.run_folder import read_runs


def bad_tile(number, reason):
    return {
        "tile": number,
        "archive": f"{number % 2}.tar",
        "member": f"{number}.jpg",
        "reason": reason,
        "replaced_by": 7,
    }


@pytest.mark.parametrize(
    "reasons",
    [
        ("found 20,868 bytes starting with 3c 68 74 6d", "found 5 bytes starting with ff d8 aa bb"),
        ("expected CRC-32 0a1b2c3d, got deadbeef", "expected CRC-32 99999999, got 00000000"),
        ("truncated (12 bytes not processed)", "truncated (4096 bytes not processed)"),
    ],
)
def test_tiles_with_the_same_fault_are_one_group(make_run, reasons):
    folder = make_run()
    rows = [bad_tile(number, reason) for number, reason in enumerate((*reasons, "its colour mode F cannot be used"))]
    (folder / "results").mkdir()
    (folder / "results" / "bad_tiles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    archives, groups, first = bad_tile_tables(read_runs([folder])[0])
    assert archives.rows == [("0.tar", "2"), ("1.tar", "1")]
    assert [count for _, count in groups.rows] == ["2", "1"]
    assert groups.rows[1][0] == "its colour mode F cannot be used"
    assert first.rows[1] == ("1", "1.tar", "1.jpg", reasons[1], "7")


def test_many_archives_and_tiles_are_cut_and_counted(make_run):
    folder = make_run()
    rows = [{**bad_tile(number, "x"), "archive": f"{number}.tar"} for number in range(35)]
    (folder / "results").mkdir()
    (folder / "results" / "bad_tiles.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    archives, _, first = bad_tile_tables(read_runs([folder])[0])
    assert archives.rows[-1] == ("25 others", "25")
    assert len(first.rows) == 20
    assert first.caption == "The first 20 of 35"


def test_steps_that_were_not_taken(make_run):
    folder = make_run()
    tiles = [{"tile": 4, "name": "a.jpg", "nonfinite": 3}, {"tile": 5, "name": "b.jpg", "nonfinite": 0}]
    ranks = [
        {"rank": 0, "first_of_them": ["p", "q"], "batches": [{"losses": {}, "tiles": tiles}]},
        {"rank": 1, "first_of_them": ["q", "r", "s"], "batches": [{"losses": {}, "tiles": []}]},
    ]
    content = {"iteration": 12, "policy": "skip", "means": {"ibot_loss": "nan", "koleo_loss": 1.0}, "ranks": ranks}
    (folder / "results").mkdir()
    (folder / "results" / "nonfinite_0000012.json").write_text(json.dumps(content))
    (folder / "results" / "nonfinite_0000013.json").write_text("{oops")
    (folder / "results" / "nonfinite_0000014.json").write_text('{"ranks": [3, {"batches": [4]}], "means": [1]}')
    (table,) = nonfinite_tables(read_runs([folder])[0])
    assert table.rows[0] == ("12", "left out", "ibot_loss = nan", "p, q, r ...", "a.jpg", "nonfinite_0000012.json")
    assert table.rows[1] == ("", "", "", "", "", "nonfinite_0000013.json")
    assert table.rows[2] == ("", "", "", "", "", "nonfinite_0000014.json")


def test_nothing_to_tell(make_run):
    (run,) = read_runs([make_run()])
    assert bad_tile_tables(run) == nonfinite_tables(run) == []
