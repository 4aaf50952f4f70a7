"""Checkpoints of strangers: nothing in a folder runs, and a folder that was tampered with is refused."""

import codecs
import copyreg
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dinov2.errors import UserError
from dinov2.train.checkpoint import Checkpointer, DamagedError, SavedCheckpoint, Snapshot
from dinov2.train.checkpoint.files import hash_file
from dinov2.train.checkpoint.manifest import MANIFEST, Manifest

FILES = (MANIFEST, "rank-00000.safetensors", "state.json")
CANARY = "DINOV2_TEST_CANARY"
TOUCH = f"import os; os.environ[{CANARY!r}] = 'executed'"
TOUCH_EXPRESSION = f"__import__('os').environ.update({CANARY}='executed')"


class Calls:
    """An object whose pickle calls a function with arguments, and perhaps sets a state."""

    def __init__(self, function: object, *args: object, state: object = None):
        self.function, self.args, self.state = function, args, state

    def __reduce__(self) -> tuple[object, ...]:
        return (self.function, self.args) if self.state is None else (self.function, self.args, self.state)


RUN = Calls(exec, TOUCH)


def torch_file(value: object, **options: Any) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def npy_file(value: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([value], object), allow_pickle=True)
    return buffer.getvalue()


def zip_file(program: bytes) -> bytes:
    """The archive that torch.load reads, with a pickle of another kind in it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/version", "3\n")
    return buffer.getvalue()


def safetensors_file(header: dict[str, Any], data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


HEX = codecs.encode(pickle.dumps(RUN), "hex").decode()
PAYLOADS: dict[str, Callable[[], bytes]] = {
    **{f"exec, protocol {number}": partial(pickle.dumps, RUN, number) for number in range(6)},
    "eval": lambda: pickle.dumps(Calls(eval, TOUCH_EXPRESSION)),
    "os.system": lambda: pickle.dumps(Calls(os.system, f"touch {CANARY}")),
    "os.putenv": lambda: pickle.dumps(Calls(os.putenv, CANARY, "executed")),
    "os.system by name": lambda: b"cposix\nsystem\n(X\x04\x00\x00\x00truetR.",
    "subprocess by name": lambda: b"csubprocess\nPopen\n(](X\x04\x00\x00\x00trueetR.",
    "getattr chain": lambda: pickle.dumps(Calls(getattr, Calls(__import__, "os"), "system")),
    "functools.partial": lambda: pickle.dumps(Calls(partial, exec, TOUCH)),
    "nested pickle": lambda: pickle.dumps(Calls(pickle.loads, pickle.dumps(RUN))),
    "state of an object": lambda: pickle.dumps(Calls(dict, state={"a": RUN})),
    "copyreg": lambda: pickle.dumps(Calls(copyreg._reconstructor, Calls, object, RUN)),
    "in a dictionary": lambda: pickle.dumps({"model": {"weight": RUN}}),
    "as a key": lambda: pickle.dumps({RUN: 1}),
    "torch.save": lambda: torch_file({"model": RUN}),
    "torch.save, old format": lambda: torch_file({"model": RUN}, _use_new_zipfile_serialization=False),
    "torch.save, pickle only": lambda: zip_file(pickle.dumps(RUN, 2)),
    "nested torch storage": lambda: pickle.dumps(Calls(torch.storage._load_from_bytes, torch_file(RUN))),
    "numpy object array": lambda: npy_file(RUN),
    "numpy.load": lambda: b"cnumpy\nload\n(X\x01\x00\x00\x00atR.",
    "instance opcode": lambda: b"(X\x04\x00\x00\x00trueios\nsystem\n.",
    "stack global": lambda: b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.",
    "index of torch.distributed.checkpoint": lambda: pickle.dumps(Calls(exec, TOUCH), 4),
    "pickle as text in JSON": lambda: json.dumps({"manifest": HEX, "__reduce__": ["os.system", "true"]}).encode(),
    "YAML tag": lambda: b"!!python/object/apply:os.system ['true']",
    "code as text": lambda: TOUCH.encode(),
    "header that is too long": lambda: (2**62).to_bytes(8, "little") + b"{}",
    "header without places": lambda: safetensors_file({"__metadata__": {"a": "b"}}),
    "places that are a pickle": lambda: safetensors_file({"__metadata__": {"pieces": HEX}}),
    "places of other tensors": lambda: safetensors_file({"__metadata__": {"pieces": '{"a": {"shape": [1]}}'}}),
    "deep nesting": lambda: b"[" * 200_000,
    "nothing": lambda: b"",
}


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


def executed(*args: object, **kwargs: object) -> Any:
    raise AssertionError("something was executed")


@contextmanager
def guarded() -> Iterator[None]:
    """What a payload could call, and every unpickler, fails the block."""
    places = ["os.system", "os.putenv", "subprocess.Popen", "torch.load", "numpy.load"]
    places += [f"{module}.{name}" for module in ("pickle", "_pickle") for name in ("load", "loads", "Unpickler")]
    with pytest.MonkeyPatch.context() as patch:
        for place in places:
            patch.setattr(place, executed)
        yield


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
    monkeypatch.setattr("dinov2.train.checkpoint.loading.read_pieces", executed)
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
