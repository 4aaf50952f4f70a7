"""Weights of strangers: whatever a file is, no door that takes weights runs anything in it."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from eval_making import TINY
from payloads import CANARY, PAYLOADS, RUN, Calls, guarded, torch_file, zip_file

from dinov2.configs import merge_layers, parse_overrides
from dinov2.errors import UserError
from dinov2.hub import lunit, resolve_weights
from dinov2.hub.backbones import load_backbone
from dinov2.hub.export.request import Request
from dinov2.hub.export.writing import export_weights
from dinov2.hub.frozen import build_frozen_backbone
from dinov2.hub.trunks import ResNet50Trunk, load_strictly
from dinov2.models.weights import load_pretrained_backbone, read_content, read_networks
from dinov2.models.weights.inert import STAND_INS, Skipped
from dinov2.models.weights.shards import join_shards


def backbone() -> torch.nn.Module:
    with torch.device("meta"):
        return load_backbone("dinov2_vits14", pretrained=False)


def evaluated(path: Path) -> object:
    return build_frozen_backbone(merge_layers([("test", parse_overrides(TINY))]), str(path))


DOORS: dict[str, Callable[[Path], object]] = {
    "training": lambda path: load_pretrained_backbone(backbone(), path),
    "evaluation": evaluated,
    "networks": read_networks,
    "shards": lambda path: join_shards([path.rename(path.with_name("m.rank_0.pth"))], {"a": (1,)}),
    "trunk": lambda path: load_strictly(ResNet50Trunk(), path),
    "export": lambda path: export_weights(Request(str(path), "safetensors", path.parent / "out")),
    "Lunit": lambda path: lunit.vit_small(weights=path),
}
pytestmark = pytest.mark.filterwarnings("ignore:Detected pickle protocol")
NAMES = ("weights.pth", "weights.safetensors", "pytorch_model.bin")


def text(value: str) -> bytes:
    """A string as pickles have it."""
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


@pytest.mark.parametrize("case", sorted(PAYLOADS))
def test_payloads_execute_nothing_and_are_refused(tmp_path: Path, case: str) -> None:
    for door, name in [("networks", name) for name in NAMES] + [("training", NAMES[0])]:
        path = tmp_path / name
        path.write_bytes(PAYLOADS[case]())
        with guarded(torch_load=True), pytest.raises(UserError, match=f"{path.name}"):
            DOORS[door](path)
    assert CANARY not in os.environ
    assert not Path(CANARY).exists()


@pytest.mark.parametrize("door", sorted(DOORS))
@pytest.mark.parametrize("case", ["torch.save", "torch.save, old format", "os.system by name", "in a dictionary"])
def test_no_door_runs_anything(tmp_path: Path, door: str, case: str) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(PAYLOADS[case]())
    with guarded(torch_load=True), pytest.raises(UserError):
        DOORS[door](path)
    assert CANARY not in os.environ
    assert not Path(CANARY).exists()


def test_folders_of_payloads(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(torch_file({"a": RUN}))
    with guarded(torch_load=True), pytest.raises(UserError, match="cannot be read as plain tensors"):
        read_networks(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    for content in (
        "[" * 100_000,
        "{}",
        '{"weight_map": {"a": "../evil.safetensors"}}',
        '{"weight_map": {"a": "x.bin"}}',
    ):
        index.write_text(content)
        with guarded(torch_load=True), pytest.raises(UserError, match="index.json"):
            read_networks(tmp_path)
    assert CANARY not in os.environ


@pytest.mark.parametrize("name", sorted(name for _, name in STAND_INS))
def test_stand_ins_do_nothing_whatever_they_are_given(tmp_path: Path, name: str) -> None:
    """A pickle may call what stands for a known class with anything: nothing happens, and no weight comes of it."""
    module, _, attribute = name.rpartition(".")
    calls = f"c{module}\n{attribute}\n(".encode() + text("os") + text("system") + b"tR"  # getattr("os", "system")
    path = tmp_path / "weights.pth"
    path.write_bytes(zip_file(b"\x80\x02" + calls + b"."))
    with guarded(torch_load=True), pytest.raises(UserError):
        read_networks(path)
    built = b"\x80\x02}" + text("a") + calls + b"}" + text("b") + text("os") + b"sbs."
    path.write_bytes(zip_file(built))
    with guarded(torch_load=True), pytest.raises(UserError):
        read_networks(path)
    assert CANARY not in os.environ


def test_attributes_of_classes_are_out_of_reach(tmp_path: Path) -> None:
    attribute = b"c__builtin__\ngetattr\nccollections\nOrderedDict\n" + text("fromkeys") + b"\x86R"
    program = b"\x80\x02}" + text("a") + attribute + b"s."
    (tmp_path / "weights.pth").write_bytes(zip_file(program))
    assert read_content(tmp_path / "weights.pth") == {"a": Skipped}


def test_the_stand_ins_are_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"norm.weight": torch.zeros(1)}, path)
    read_networks(path)
    known = torch.serialization.get_safe_globals()
    assert not any(stand_in in known for stand_in in STAND_INS)


def test_payloads_do_work_when_they_are_unpickled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CANARY, raising=False)
    pickle.loads(pickle.dumps(Calls(exec, f"import os; os.environ[{CANARY!r}] = 'executed'")))
    assert os.environ.pop(CANARY) == "executed"


@pytest.mark.parametrize("name", ["file:///etc/passwd", "http://example.org/a.pth", "ftp://example.org/a", "s3://a/b"])
def test_addresses_that_are_not_https(name: str) -> None:
    with pytest.raises(UserError, match="no https address"):
        resolve_weights(name)
