"""Kept features are used only where they are what would be computed."""

from pathlib import Path

import numpy as np
import pytest
import torch
from golden import normal

from dinov2.errors import UserError
from dinov2.eval.feature_files import check_suffix, load_features, origin_of, save_features

ORIGIN = {"weights": "abc", "tokens": "1_blocks_avgpool_False", "train set": {"samples": 5}}


@pytest.fixture(params=[".npz", ".safetensors"])
def path(request, tmp_path) -> Path:
    path = tmp_path / f"features{request.param}"
    save_features(path, {"train": normal("train", (5, 3)), "test 1": normal("test", (2, 3))}, ORIGIN)
    return path


def test_what_was_saved_is_loaded(path):
    found = load_features(path, {**ORIGIN, "weights": None})
    assert torch.equal(found["train"], normal("train", (5, 3)))
    assert torch.equal(found["test 1"], normal("test", (2, 3)))
    assert origin_of(path) == ORIGIN


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"weights": "f" * 64}, r"other weights\. Remove it"),
        ({"tokens": "4_blocks"}, r"other tokens \(1_blocks_avgpool_False, expected 4_blocks\)"),
        ({"train set": {"samples": 6}}, r"another train set \(samples 5, expected 6\)"),
        ({"train set": {"samples": 5, "tiles": "f" * 64}}, r"another train set \(other tiles\)"),
        ({"val set": {"samples": 1}}, r"another val set \(it has none of this one\)"),
    ],
)
def test_features_of_something_else(path, changed, message):
    with pytest.raises(UserError, match=f"has the features of {message}"):
        load_features(path, {**ORIGIN, **changed})


def test_a_changed_number(path):
    content = bytearray(path.read_bytes())
    place = content.index(normal("test", (2, 3)).numpy().tobytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"damaged|cannot be read"):  # .npz has a CRC-32 of its own
        load_features(path, ORIGIN)


def test_what_is_no_such_file(tmp_path):
    for suffix in (".npz", ".safetensors"):
        (tmp_path / f"a{suffix}").write_bytes(b"nothing" * 10)
        with pytest.raises(UserError, match="cannot be read"):
            load_features(tmp_path / f"a{suffix}", ORIGIN)
    np.savez(tmp_path / "b.npz", a=np.zeros(3))
    with pytest.raises(UserError, match="cannot be read"):
        load_features(tmp_path / "b.npz", ORIGIN)
    with pytest.raises(UserError, match=r"ends with .npz or .safetensors"):
        check_suffix(tmp_path / "features.pt")
