"""Checkpoints of strangers: nothing in a folder runs, and a folder that was tampered with is refused."""

import os
import pickle
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from payloads import CANARY, PAYLOADS, RUN, executed, guarded

from dinov2.errors import UserError
from dinov2.train.checkpoint import Checkpointer, DamagedError, SavedCheckpoint, Snapshot
from dinov2.utils.checkpoint.files import hash_file
from dinov2.utils.checkpoint.manifest import MANIFEST, Manifest

FILES = (MANIFEST, "rank-00000.safetensors", "state.json")


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A checkpoint folder of step 2, beside one of step 1."""
    checkpointer = Checkpointer(tmp_path)
    for step in (1, 2):
        checkpointer.save(Snapshot({"weights": torch.zeros(10)}, {"step": step}), step)
    checkpointer.finish()
    return tmp_path / "step-0000002"


def reseal(folder: Path, **changes: Any) -> None:
    """Make a manifest that fits what is in the folder, as an attacker can."""
    records = {path.name: hash_file(path) for path in folder.iterdir() if path.name != MANIFEST}
    fields: dict[str, Any] = {"step": 2, "world_size": 1, "config_digest": "", "files": records, **changes}
    (folder / MANIFEST).write_text(Manifest(**fields).to_text())


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("case", sorted(PAYLOADS))
def test_payloads_execute_nothing_and_are_refused(saved: Path, case: str, file: str) -> None:
    (saved / file).write_bytes(PAYLOADS[case]())
    with guarded(), pytest.raises(DamagedError, match=file):
        SavedCheckpoint(saved)
    with guarded():
        newest = Checkpointer(saved.parent).load_newest()
    assert newest is not None
    assert newest.values == {"step": 1}
    reseal(saved)
    # JSON of something else is plain data; whoever looks for a state in it finds none.
    allowed = suppress(DamagedError) if file == "state.json" else pytest.raises(DamagedError, match="no checkpoint")
    with guarded(), allowed if file != MANIFEST else nullcontext():
        SavedCheckpoint(saved)
    assert CANARY not in os.environ
    assert not Path(CANARY).exists()


def test_there_are_enough_payloads() -> None:
    assert len(PAYLOADS) >= 25


@pytest.mark.parametrize("name", [".metadata", "../evil", "a/b", "", "..", "A.safetensors", MANIFEST])
def test_names_that_are_no_file_of_a_checkpoint(saved: Path, name: str) -> None:
    records = {path.name: hash_file(path) for path in saved.iterdir() if path.name != MANIFEST}
    reseal(saved, files={**records, name: records["state.json"]})
    with pytest.raises(DamagedError, match="no name of a file of a checkpoint"):
        SavedCheckpoint(saved)


@pytest.mark.parametrize("name", [".metadata", "state.pt", "__init__.py", "rank-00001.safetensors"])
def test_a_file_too_many(saved: Path, name: str) -> None:
    (saved / name).write_bytes(pickle.dumps(RUN))
    with pytest.raises(DamagedError, match=f"'{name}' is not part of it"):
        SavedCheckpoint(saved)


@pytest.mark.parametrize("file", FILES)
def test_links_lead_nowhere(saved: Path, tmp_path: Path, file: str) -> None:
    (saved / file).rename(tmp_path / "outside")
    (saved / file).symlink_to(tmp_path / "outside")  # even to what it was
    with pytest.raises(DamagedError, match=file):
        SavedCheckpoint(saved)


def test_a_pipe_is_not_waited_for(saved: Path) -> None:
    for file in FILES:
        content = (saved / file).read_bytes()
        (saved / file).unlink()
        os.mkfifo(saved / file)
        with pytest.raises(DamagedError, match=file):
            SavedCheckpoint(saved)
        (saved / file).unlink()
        (saved / file).write_bytes(content)


def test_the_manifest_is_checked_before_anything_is_opened(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (saved / "state.json").write_text("{}")
    monkeypatch.setattr("dinov2.utils.checkpoint.reading.read_pieces", executed)
    monkeypatch.setattr("dinov2.train.checkpoint.loading.json", None)
    with pytest.raises(UserError, match="state.json has 2 bytes"):
        SavedCheckpoint(saved)


def test_a_step_folder_that_is_a_link_is_no_checkpoint(saved: Path, tmp_path: Path) -> None:
    saved.rename(tmp_path / "elsewhere")
    saved.symlink_to(tmp_path / "elsewhere")
    assert Checkpointer(tmp_path).steps() == [1]


def test_permissions_are_no_wider_than_those_of_the_user(saved: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    for path in (saved, *saved.iterdir()):
        assert path.stat().st_mode & 0o777 & mask == 0
