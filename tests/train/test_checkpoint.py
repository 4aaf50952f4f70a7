"""Checkpoints: whole or not there, found when damaged, never silently replaced by a fresh start."""

import json
import os
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from safetensors.torch import load_file
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor, Shard, distribute_tensor

from dinov2.distributed import get_global_rank, get_global_size
from dinov2.errors import ExitCode, UserError
from dinov2.train.checkpoint import (
    Checkpointer,
    DamagedError,
    SavedCheckpoint,
    SaveError,
    Snapshot,
    json_digest,
    state_digest,
)
from dinov2.train.checkpoint.retention import steps_to_retire
from dinov2.utils import faults
from dinov2.utils.checkpoint import files as files_module
from dinov2.utils.checkpoint import manifest as manifest_module
from dinov2.utils.checkpoint.files import BLOCK, Piece, hash_file, read_pieces, tensor_blocks, write_file
from dinov2.utils.checkpoint.manifest import MANIFEST, Manifest

SHARD = "rank-00000.safetensors"


def snapshot(number: int) -> Snapshot:
    return Snapshot({"weights": torch.full((1000,), float(number))}, {"iteration": number})


@pytest.fixture
def saved(tmp_path) -> Checkpointer:
    checkpointer = Checkpointer(tmp_path / "checkpoints", keep_last=2)
    for step in (5, 10, 15):
        checkpointer.save(snapshot(step), step)
    return checkpointer


def iteration_of_newest(checkpointer: Checkpointer) -> int:
    found = checkpointer.load_newest()
    assert found is not None
    weights = {"weights": torch.zeros(1000)}
    found.read_into(weights)
    assert set(weights["weights"].tolist()) == {float(found.values["iteration"])}
    return found.values["iteration"]


def test_newest_are_kept_and_loaded(saved):
    assert saved.steps() == [10, 15]
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-0000010", "step-0000015"]
    assert sorted(path.name for path in (saved.folder / "step-0000015").iterdir()) == [MANIFEST, SHARD, "state.json"]
    assert iteration_of_newest(saved) == 15


def test_the_same_step_is_written_again_only_if_something_else_is_to_be_said(saved):
    manifest = saved.folder / "step-0000015" / MANIFEST
    before = manifest.stat().st_mtime_ns
    saved.save(snapshot(15), 15)
    assert manifest.stat().st_mtime_ns == before
    state = snapshot(15)
    saved.save(Snapshot(state.tensors, {**state.values, "more": 1}), 15)
    assert saved.load_newest().values == {"iteration": 15, "more": 1}
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-0000010", "step-0000015"]


def test_values_of_every_kind_come_back_as_they_were(tmp_path):
    tensors = {
        "matrix": torch.randn(7, 5),
        "scalar": torch.tensor(3.5),
        "half": torch.randn(3).half(),
        "brain": torch.randn(3, 2).bfloat16(),
        "double": torch.randn(2).double(),
        "count": torch.tensor([2**62 + 1, -1]),
        "flags": torch.tensor([True, False, True]),
        "small": torch.tensor([-3, 100], dtype=torch.int8),
        "view": torch.randn(6, 4).t()[1:3],
        "odd": torch.tensor([float("nan"), float("inf"), -0.0]),
    }
    values = {"best": -float("inf"), "third": 1 / 3, "none": None, "flag": True, "window": [0.1, 1e-300], "n": 2**60}
    Checkpointer(tmp_path).save(Snapshot(tensors, values, "digest"), 1)
    found = SavedCheckpoint(tmp_path / "step-0000001")
    assert state_digest(found.read_all(), found.values) == state_digest(tensors, values)
    into = {name: torch.empty_like(tensor) for name, tensor in tensors.items()}
    found.read_into(into)
    assert state_digest(into, {}) == state_digest(tensors, {})
    assert (found.manifest.step, found.manifest.world_size, found.manifest.config_digest) == (1, 1, "digest")
    assert found.tensors["brain"] == (torch.bfloat16, (3, 2))


def test_digest_of_a_state_sees_everything():
    base = {"a": torch.tensor([1.0, 2.0]), "b": torch.zeros(2, dtype=torch.int32)}
    others = [
        {**base, "a": torch.tensor([1.0, 2.0000002])},
        {**base, "b": torch.zeros(2, dtype=torch.float32)},
        {**base, "a": torch.tensor([[1.0, 2.0]])},
        {"a": base["a"], "c": base["b"]},
    ]
    digests = {state_digest(tensors, {"x": 1}) for tensors in (base, *others)} | {state_digest(base, {"x": 2})}
    assert len(digests) == 6
    assert state_digest(dict(reversed(base.items())), {"x": 1}) == state_digest(base, {"x": 1})
    assert json_digest({"a": 1, "b": 2}) == json_digest({"b": 2, "a": 1}) != json_digest({"a": 1, "b": 3})


def test_files_are_safetensors_and_hashed_as_written(tmp_path):
    tensors = {
        "large": torch.randn(BLOCK // 4 + 3),
        "bytes": torch.arange(5, dtype=torch.uint8),
        "one": torch.tensor(2.0),
    }
    pieces = [Piece(name, tensor, tuple(tensor.shape), (0,) * tensor.dim()) for name, tensor in tensors.items()]
    record = write_file(tmp_path / "a.safetensors", tensor_blocks(pieces))
    assert record == hash_file(tmp_path / "a.safetensors")
    found = load_file(tmp_path / "a.safetensors")  # the safetensors library's own reader
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors.items())
    assert {piece.name: piece.shape for piece in read_pieces(tmp_path / "a.safetensors")}["one"] == ()
    with pytest.raises(FileExistsError):
        write_file(tmp_path / "a.safetensors", [])


@pytest.mark.parametrize(
    ("keep_last", "keep_every", "gone"),
    [
        (3, None, [5, 10, 15, 20]),
        (0, None, []),
        (1, 10, [5, 15, 25]),
        (3, 5, []),
        (9, 1, []),
        (2, 7, [5, 10, 15, 20, 25]),
    ],
)
def test_retention(keep_last, keep_every, gone):
    steps = [5, 10, 15, 20, 25, 30, 35, 99]  # 99 is of a future that was damaged
    assert steps_to_retire(steps, 35, keep_last=keep_last, keep_every=keep_every) == gone


def test_retention_reads_the_disk(saved):
    again = Checkpointer(saved.folder, keep_last=1, keep_every=10)
    again.save(snapshot(20), 20)
    again.save(snapshot(25), 25)
    assert again.steps() == [10, 20, 25]
    everything = Checkpointer(saved.folder, keep_last=0)
    for step in (26, 27, 28, 29):
        everything.save(snapshot(step), step)
    assert everything.steps() == [10, 20, 25, 26, 27, 28, 29]


def test_a_damaged_checkpoint_takes_no_place_of_a_good_one(saved):
    (saved.folder / "step-0000015" / SHARD).write_bytes(b"")
    again = Checkpointer(saved.folder, keep_last=2)
    assert iteration_of_newest(again) == 10
    again.save(snapshot(12), 12)
    assert again.steps() == [10, 12, 15]
    again.save(snapshot(15), 15)  # takes the damaged one's place
    assert again.steps() == [12, 15]
    assert iteration_of_newest(again) == 15


def flip_bit(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


def replace_by_link(path):
    path.rename(path.parent.parent / "elsewhere")
    path.symlink_to(path.parent.parent / "elsewhere")


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (lambda folder: flip_bit(folder / SHARD), SHARD),
        (lambda folder: flip_bit(folder / "state.json"), "state.json"),
        (lambda folder: flip_bit(folder / MANIFEST), MANIFEST),
        (lambda folder: (folder / SHARD).write_bytes((folder / SHARD).read_bytes()[:-1]), SHARD),
        (lambda folder: (folder / SHARD).unlink(), SHARD),
        (lambda folder: (folder / MANIFEST).unlink(), MANIFEST),
        (lambda folder: (folder / MANIFEST).write_text("{"), MANIFEST),
        (lambda folder: (folder / MANIFEST).write_text("[" * 100_000), MANIFEST),
        (lambda folder: (folder / MANIFEST).write_text((folder / MANIFEST).read_text() + " "), MANIFEST),
        (lambda folder: (folder / "extra.txt").write_text(""), "extra.txt"),
        (lambda folder: replace_by_link(folder / SHARD), SHARD),
        (lambda folder: replace_by_link(folder / MANIFEST), MANIFEST),
        (lambda folder: ((folder / SHARD).unlink(), (folder / SHARD).mkdir()), SHARD),
    ],
)
def test_damage_is_named_and_the_one_before_used(saved, damage, name, caplog):
    damage(saved.folder / "step-0000015")
    with pytest.raises(DamagedError, match=name):
        SavedCheckpoint(saved.folder / "step-0000015")
    assert iteration_of_newest(saved) == 10
    assert "step-0000015 cannot be used" in caplog.text


def test_a_checkpoint_under_another_step_is_damaged(saved):
    (saved.folder / "step-0000015").rename(saved.folder / "step-0000020")
    assert iteration_of_newest(saved) == 10
    assert SavedCheckpoint(saved.folder / "step-0000020").manifest.step == 15  # asked for by its path, it is what it is


def reseal(folder, **changes):
    """Give a folder a valid manifest again after what was done to it."""
    manifest = Manifest.from_text((folder / MANIFEST).read_text())
    records = {path.name: hash_file(path) for path in folder.iterdir() if path.name != MANIFEST}
    fields = {"step": manifest.step, "world_size": 1, "config_digest": "", "files": records, **changes}
    (folder / MANIFEST).write_text(Manifest(**fields).to_text())


def test_another_format_is_refused_and_not_passed_over(saved):
    reseal(saved.folder / "step-0000015", format=2)
    with pytest.raises(UserError, match="has format 2, this version reads format 1"):
        saved.load_newest()


def test_well_sealed_nonsense_is_refused(saved):
    folder = saved.folder / "step-0000015"
    (folder / SHARD).write_bytes(b"\xff" * 100)
    reseal(folder)
    with pytest.raises(DamagedError, match="no checkpoint of this program"):
        SavedCheckpoint(folder)
    half = torch.zeros(500)
    (folder / SHARD).unlink()
    write_file(folder / SHARD, tensor_blocks([Piece("weights", half, (1000,), (0,))]))
    reseal(folder)
    with pytest.raises(DamagedError, match="pieces of weights do not make one whole tensor"):
        SavedCheckpoint(folder)


def test_all_damaged_is_an_error_not_a_fresh_start(saved):
    for step in saved.steps():
        flip_bit(saved.folder / f"step-{step:07d}" / SHARD)
    with pytest.raises(UserError, match="(?s)all checkpoints .* are damaged .*step-0000015.*step-0000010"):
        saved.load_newest()


def test_no_checkpoints_is_a_fresh_start(tmp_path):
    assert Checkpointer(tmp_path / "none").load_newest() is None
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "step-12").mkdir()  # not a name that this program gives
    (tmp_path / "none" / "step-00000012").mkdir()
    (tmp_path / "none" / "step-0000012").symlink_to(tmp_path)
    assert Checkpointer(tmp_path / "none").load_newest() is None


def fail_to_flush(monkeypatch):
    def crash(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(files_module.os, "fsync", crash)


def test_a_save_that_fails_leaves_nothing_and_training_goes_on(saved, monkeypatch, caplog):
    fail_to_flush(monkeypatch)
    saved.save(snapshot(20), 20)
    assert "step-0000020 could not be saved: no space left on device" in caplog.text
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-0000010", "step-0000015"]
    with pytest.raises(SaveError, match="step-0000020 could not be saved") as error:
        saved.finish()  # a run must not end well with its last save undone
    assert error.value.exit_code == ExitCode.FAILED
    monkeypatch.undo()
    saved.save(snapshot(25), 25)
    saved.finish()
    assert iteration_of_newest(saved) == 25


def test_a_save_that_fails_stops_the_run_if_it_is_to(saved, monkeypatch):
    strict = Checkpointer(saved.folder, stop_on_error=True)
    fail_to_flush(monkeypatch)
    with pytest.raises(SaveError, match="no space left"):
        strict.save(snapshot(20), 20)


def test_a_state_that_cannot_be_written_is_no_reason_to_stop_but_shows_where(saved, caplog):
    saved.save(Snapshot({"weights": torch.zeros(3, dtype=torch.complex64)}, {}), 20)
    assert "could not be saved" in caplog.text
    assert "KeyError" in caplog.text
    assert saved.steps() == [10, 15]


def test_temporaries_of_dead_writers_go_and_others_stay(saved):
    dead = [
        f".step-0000016.{host}.{process}.0123abcd.tmp"
        for host, process in ((machine(), 2**22 + 1), (machine(), os.getpid()))
    ]
    alive = f".step-0000017.{machine()}.{os.getppid()}.0123abcd.tmp"
    elsewhere, long_ago = ".step-0000018.other.1.0123abcd.tmp", ".step-0000019.other.1.0123abcd.tmp"
    for name in (*dead, alive, elsewhere, long_ago, ".mine.tmp"):
        (saved.folder / name).mkdir()
    day = time.time() - 100_000
    os.utime(saved.folder / long_ago, (day, day))
    saved.save(snapshot(20), 20)
    left = {path.name for path in saved.folder.iterdir()}
    assert left == {"step-0000015", "step-0000020", alive, elsewhere, ".mine.tmp"}
    assert iteration_of_newest(saved) == 20


def machine() -> str:
    return os.uname().nodename.partition(".")[0]


def test_little_room_is_said(saved, monkeypatch, caplog):
    usage = type("Usage", (), {"free": 5000})
    monkeypatch.setattr("dinov2.train.checkpoint.checkpointer.shutil.disk_usage", lambda folder: usage)
    saved.save(snapshot(20), 20)
    assert "less than two more checkpoints" in caplog.text


def test_in_the_background_the_state_may_change_at_once(tmp_path, monkeypatch):
    checkpointer = Checkpointer(tmp_path, background=True)
    weights = torch.zeros(1000)
    monkeypatch.setattr(faults, "_plan", faults.parse_plan("shard.before_open=delay:0.2@1+"))
    for step in (1, 2, 3):
        weights.fill_(step)
        checkpointer.save(Snapshot({"weights": weights}, {"iteration": step}), step)
        weights.fill_(-1)
        assert checkpointer.steps() == list(range(1, step))  # at most one on its way
        checkpointer.poll()  # it is still being written
        assert checkpointer.steps() == list(range(1, step))
    while checkpointer.steps() != [1, 2, 3]:
        time.sleep(0.01)
        checkpointer.poll()
    checkpointer.finish()
    assert iteration_of_newest(checkpointer) == 3


def test_a_failure_in_the_background_is_told_at_the_next_step(tmp_path, monkeypatch, caplog):
    checkpointer = Checkpointer(tmp_path, background=True)
    fail_to_flush(monkeypatch)
    checkpointer.save(snapshot(1), 1)
    deadline = time.monotonic() + 20
    while "could not be saved" not in caplog.text and time.monotonic() < deadline:
        checkpointer.poll()
    assert "step-0000001 could not be saved: no space left" in caplog.text
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(SaveError):
        checkpointer.finish()


# Several processes. Shapes that do not divide by the number of ranks, and one with fewer rows than ranks.
SHAPES = {"a": (5, 3), "b": (1, 4), "c": (8,), "d": ()}


def whole_tensors() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


def sharded(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Some tensors sharded by rows over all ranks, "c" and "d" on every rank."""
    mesh = init_device_mesh("cpu", (get_global_size(),))
    return {name: distribute_tensor(t, mesh, [Shard(0)]) if name in "ab" else t for name, t in tensors.items()}


def save_sharded(folder, background=False) -> str:
    checkpointer = Checkpointer(folder, background=background)
    checkpointer.save(Snapshot(sharded(whole_tensors()), {"n": 1}), 7)
    checkpointer.finish()
    return state_digest(SavedCheckpoint(folder / "step-0000007", 7).read_all(), {"n": 1})


def load_sharded(folder) -> str:
    tensors = sharded({name: torch.zeros(shape) for name, shape in SHAPES.items()})
    found = Checkpointer(folder).load_newest()
    found.read_into(tensors)
    whole = {name: t.full_tensor() if isinstance(t, DTensor) else t for name, t in tensors.items()}
    return state_digest(whole, found.values)


@pytest.mark.parametrize(("writers", "readers", "background"), [(1, 2, False), (3, 2, False), (2, 3, True)])
def test_any_number_of_processes_reads_what_any_number_wrote(tmp_path, writers, readers, background):
    expected = state_digest(whole_tensors(), {"n": 1})
    assert run_ranks(save_sharded, writers, tmp_path, background) == [expected] * writers
    assert len(list((tmp_path / "step-0000007").glob("rank-*"))) == writers
    assert run_ranks(load_sharded, readers, tmp_path) == [expected] * readers


def test_what_all_ranks_hold_is_written_once_and_shared_out(tmp_path):
    run_ranks(save_sharded, 2, tmp_path)
    pieces = [read_pieces(tmp_path / "step-0000007" / f"rank-0000{rank}.safetensors") for rank in range(2)]
    names = [piece.name for part in pieces for piece in part]
    assert names.count("c") == names.count("d") == 1
    assert all(part for part in pieces)


def fail_on_rank(folder, failing: int, background: bool) -> tuple[list[int], str]:
    if get_global_rank() == failing:
        os.environ["DINOV2_FAULTS"] = "shard.half_written=EIO"
        faults.read_plan()
    checkpointer = Checkpointer(folder, background=background)
    try:
        checkpointer.save(Snapshot(sharded(whole_tensors()), {}), 7)
        checkpointer.finish()
    except SaveError as error:
        message = str(error)
    checkpointer.save(Snapshot(sharded(whole_tensors()), {}), 8)
    checkpointer.finish()
    return checkpointer.steps(), message


@pytest.mark.parametrize(("failing", "background"), [(0, False), (1, False), (1, True)])
def test_all_ranks_hear_of_a_failure_on_one(tmp_path, failing, background):
    for steps, message in run_ranks(fail_on_rank, 2, tmp_path, failing, background):
        assert steps == [8]
        assert "made on purpose at shard.half_written" in message


def damage_share_of_rank(folder) -> str:
    with pytest.raises(UserError) as error:
        Checkpointer(folder).load_newest()
    return str(error.value)


def test_all_ranks_hear_of_damage_that_one_found(tmp_path):
    run_ranks(save_sharded, 2, tmp_path)
    flip_bit(tmp_path / "step-0000007" / "rank-00001.safetensors")
    messages = run_ranks(damage_share_of_rank, 2, tmp_path)
    assert len(set(messages)) == 1
    assert "rank-00001.safetensors is not what was written" in messages[0]


def test_manifest_is_canonical(saved):
    text = (saved.folder / "step-0000015" / MANIFEST).read_text()
    assert Manifest.from_text(text).to_text() == text
    content = json.loads(text)
    for key in ("step", "format"):  # a flipped bit in the format is damage, and no other version
        changed = {**content, "manifest": {**content["manifest"], key: 3}}
        with pytest.raises(DamagedError):
            Manifest.from_text(json.dumps(changed, indent=1, sort_keys=True) + "\n")


def test_a_failure_while_a_step_is_written_again_keeps_what_was_there(saved, monkeypatch):
    state = snapshot(15)
    rename = Path.rename

    def fail(path, target):
        if path.name.endswith(".tmp") and target.name == "step-0000015":
            monkeypatch.setattr(Path, "rename", rename)
            raise OSError("the disk is gone")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    saved.save(Snapshot(state.tensors, {**state.values, "more": 1}), 15)
    assert saved.load_newest().values == {"iteration": 15}
    assert sorted(path.name for path in saved.folder.iterdir()) == ["step-0000010", "step-0000015"]


def test_a_manifest_of_something_else(saved):
    for body in ([], {"format": 1}, {"format": 1, "files": []}, {"format": 1, "files": {"a": {"bytes": 1}}}):
        text = json.dumps({"manifest": body, "sha256": manifest_module._seal(body)}, indent=1, sort_keys=True) + "\n"
        with pytest.raises(DamagedError):
            Manifest.from_text(text)
