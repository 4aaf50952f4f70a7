"""Weights are told from what comes in their place by first bytes and structure."""

import gzip
import io
import json
import zipfile

import pytest
import torch
from safetensors.torch import save

from dinov2.errors import UserError
from dinov2.models.weights import read_content
from dinov2.models.weights.file_kind import kind_of

STATE = {"a": torch.arange(300.0), "b.weight": torch.ones(2, 3, dtype=torch.float16)}


def torch_file(**options: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save(STATE, buffer, **options)
    return buffer.getvalue()


def zip_file(name: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(name, "x")
    return buffer.getvalue()


ZIP, LEGACY, SAFE = torch_file(), torch_file(_use_new_zipfile_serialization=False), save(STATE, {"format": "pt"})


@pytest.mark.parametrize("name", ["w.pth", "w.safetensors", "download", "pytorch_model.bin"])
@pytest.mark.parametrize("content", [ZIP, LEGACY, SAFE])
def test_weights_are_read_by_what_they_are(name, content, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    assert kind_of(path) == ("safetensors" if content is SAFE else "torch")
    if content is SAFE or not name.endswith("safetensors"):
        assert read_content(path)["a"].equal(STATE["a"])


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", r"it is empty \(0 bytes\)"),
        (b"\n<!DOCTYPE html><html><title>Sign in</title>", "a web page .*log-in, which begins '<!DOCTYPE html><html>"),
        ("\ufeff<HTML>".encode(), "a web page"),
        (b"<!-- Zugang -->\n<html>", "HTML or XML"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "HTML or XML, .*AccessDenied"),
        (b'{"error":"Access to model is restricted"}', "JSON, .*restricted"),
        (b"[]", "JSON"),
        (b"Invalid username or password.", "text, which begins 'Invalid username"),
        ("Accès refusé".encode("latin-1"), "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n", "a pointer of git-lfs"),
        (gzip.compress(b"<html>"), "gzip data"),
        (b"%PDF-1.7\n%\xe2\xe3", "a PDF"),
        (ZIP[:-1], "truncated or damaged"),
        (ZIP[: len(ZIP) // 2], "truncated or damaged"),
        (ZIP[:4], "truncated or damaged"),
        (SAFE[:-1], f"its header tells of {len(SAFE):,} bytes"),
        (SAFE + b"\0", "truncated or damaged"),
        (SAFE[:40], "ends within its header"),
        ((20).to_bytes(8, "little") + b'{"a": [1, 2, 3, 4]} ', "header cannot be read"),
        (zip_file("paper/readme.txt"), "a zip archive with paper/readme.txt, and not one of torch"),
    ],
)
def test_other_things_are_named(content, what, tmp_path):
    path = tmp_path / "w.pth"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"w.pth is no file of weights: .*{what}"):
        read_content(path)


def test_a_model_cloned_without_lfs(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 7\n"
    (tmp_path / "part-1.safetensors").write_bytes(pointer)
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "part-1.safetensors"}}))
    with pytest.raises(UserError, match=r"part-1.safetensors is no file of weights: a pointer.*git lfs pull"):
        read_content(tmp_path)
