"""Checkpoints: whole or not there, found when damaged, never silently replaced by a fresh start."""

import pytest
import torch

from dinov2.errors import UserError
from dinov2.train import checkpoint as checkpoint_module
from dinov2.train.checkpoint import MANIFEST, STATE, Checkpointer, find_damage


def state(number: int) -> dict:
    return {"iteration": number, "weights": torch.full((1000,), float(number))}


@pytest.fixture
def saved(tmp_path) -> Checkpointer:
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep_last=2)
    for step in (5, 10, 15):
        checkpointer.save(state(step), step)
    return checkpointer


def test_newest_are_kept_and_loaded(saved):
    assert saved.steps() == [10, 15]
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-0000010", "step-0000015"]
    assert saved.load_newest()["iteration"] == 15
    saved.save(state(99), 15)  # the same step again changes nothing
    assert saved.load_newest()["iteration"] == 15


def test_retention_reads_the_disk(saved):
    again = Checkpointer(saved.folder, keep_last=1)
    again.save(state(20), 20)
    assert again.steps() == [20]
    everything = Checkpointer(saved.folder, keep_last=0)
    for step in (21, 22, 23, 24):
        everything.save(state(step), step)
    assert everything.steps() == [20, 21, 22, 23, 24]


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: flip_bit(folder / STATE),
        lambda folder: (folder / STATE).write_bytes((folder / STATE).read_bytes()[:-1]),
        lambda folder: (folder / STATE).unlink(),
        lambda folder: (folder / MANIFEST).unlink(),
        lambda folder: (folder / MANIFEST).write_text("{"),
    ],
)
def test_damage_is_found_and_the_one_before_used(saved, damage, caplog):
    damage(saved.folder / "step-0000015")
    assert find_damage(saved.folder / "step-0000015")
    assert find_damage(saved.folder / "step-0000010") is None
    assert saved.load_newest()["iteration"] == 10
    assert "step-0000015 is damaged" in caplog.text


def test_all_damaged_is_an_error_not_a_fresh_start(saved):
    for step in saved.steps():
        flip_bit(saved.folder / f"step-{step:07d}" / STATE)
    with pytest.raises(UserError, match="all checkpoints .* are damaged"):
        saved.load_newest()


def test_no_checkpoints_is_a_fresh_start(tmp_path):
    assert Checkpointer(tmp_path / "none").load_newest() is None


def test_a_crash_while_writing_leaves_nothing_that_counts(saved, monkeypatch):
    def crash(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(checkpoint_module, "fsync", crash)
    with pytest.raises(OSError, match="no space"):
        saved.save(state(20), 20)
    assert saved.steps() == [10, 15]
    (saved.folder / ".step-0000020.123.tmp").mkdir()  # what a kill would leave
    monkeypatch.undo()
    assert saved.load_newest()["iteration"] == 15
    saved.save(state(20), 20)
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-0000015", "step-0000020"]


def test_loading_runs_no_code(tmp_path):
    class Payload:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    checkpointer = Checkpointer(tmp_path / "checkpoints")
    checkpointer.save({"x": Payload()}, 1)
    with pytest.raises(Exception, match="(?i)weights.only"):
        checkpointer.load_newest()
    assert not (tmp_path / "owned").exists()
