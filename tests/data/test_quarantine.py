"""The report of bad tiles and its limit."""

import json
import logging
from pathlib import Path

import pytest
from ranks import run_ranks

from dinov2 import distributed
from dinov2.data.datasets import TilePlace
from dinov2.data.quarantine import SHOWN, BadTile, Quarantine, TooManyBadTilesError
from dinov2.errors import UserError


def bad(tile: int) -> BadTile:
    place = TilePlace("tiles.tar", f"t{tile}.jpg", 512, 600)
    return BadTile(tile, place, "is not a usable image", replaced_by=tile + 1)


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_bad_tile_is_listed_once(tmp_path, caplog):
    path = tmp_path / "results" / "bad_tiles.jsonl"
    quarantine = Quarantine(path, num_tiles=1000, max_share=0.05)
    quarantine.share(quarantine.pending)
    assert not path.exists()
    with caplog.at_level(logging.WARNING, "dinov2"):
        quarantine.note([bad(5), bad(3)])
        quarantine.share(quarantine.pending)
        quarantine.note([bad(5)])
        quarantine.share(quarantine.pending)
    assert [line["tile"] for line in lines(path)] == [3, 5]
    assert lines(path)[0] == {
        "tile": 3,
        "archive": "tiles.tar",
        "member": "t3.jpg",
        "start": 512,
        "end": 600,
        "reason": "is not a usable image",
        "replaced_by": 4,
    }
    assert 'tile 3 ("t3.jpg" of tiles.tar at bytes 512-600) is not a usable image' in caplog.messages[0]
    assert "1 of at most 50 bad tiles" in caplog.messages[0]
    assert len(caplog.messages) == 2


def test_the_log_is_not_flooded(tmp_path, caplog):
    quarantine = Quarantine(tmp_path / "bad.jsonl", num_tiles=1000, max_share=1)
    quarantine.note([bad(i) for i in range(SHOWN + 10)])
    with caplog.at_level(logging.WARNING, "dinov2"):
        quarantine.share(quarantine.pending)
    assert len(caplog.messages) == SHOWN and "listed in" in caplog.messages[-1]
    assert len(lines(tmp_path / "bad.jsonl")) == SHOWN + 10


@pytest.mark.parametrize(("max_share", "allowed"), [(0.0, 0), (0.001, 1), (0.003, 3)])
def test_past_the_limit_the_run_stops(tmp_path, max_share, allowed):
    quarantine = Quarantine(tmp_path / "bad.jsonl", num_tiles=1000, max_share=max_share)
    for tile in range(allowed):
        quarantine.note([bad(tile)])
        quarantine.share(quarantine.pending)
    quarantine.note([bad(allowed)])
    with pytest.raises(
        TooManyBadTilesError, match=rf"t{allowed}\.jpg.*Bad tiles: {allowed + 1}, allowed .*: {allowed}\."
    ):
        quarantine.share(quarantine.pending)
    assert len(lines(tmp_path / "bad.jsonl")) == allowed + 1


def test_a_resumed_run_goes_on_with_the_report(tmp_path):
    path = tmp_path / "bad.jsonl"
    path.write_text(json.dumps({"tile": 3}) + "\n" + json.dumps({"tile": 8}) + '\n{"til')
    quarantine = Quarantine(path, num_tiles=10, max_share=0.3)
    assert quarantine.count == 2
    quarantine.note([bad(3), bad(4)])
    quarantine.share(quarantine.pending)
    assert [line["tile"] for line in lines(path)] == [3, 8, 4]
    path.write_text("no json\n")
    with pytest.raises(UserError, match="damaged"):
        Quarantine(path, num_tiles=10, max_share=0.3)


def _share_on_ranks(path: Path) -> tuple[int, str]:
    rank = distributed.get_global_rank()
    quarantine = Quarantine(path, num_tiles=1000, max_share=0.002)
    quarantine.share(0)
    quarantine.note([bad(10 + rank)] if rank else [])
    quarantine.share(2)
    quarantine.note([bad(0)] if rank == 0 else [])
    try:
        quarantine.share(1)
    except TooManyBadTilesError as error:
        return quarantine.count, str(error)
    return quarantine.count, ""


def test_all_ranks_know_and_stop_together(tmp_path):
    results = run_ranks(_share_on_ranks, 3, tmp_path / "bad.jsonl")
    assert results[0] == results[1] == results[2]
    assert results[0][0] == 3 and "max_bad_share: 2." in results[0][1]
    assert [line["tile"] for line in lines(tmp_path / "bad.jsonl")] == [11, 12, 0]
