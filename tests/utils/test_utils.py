"""Derived seeds, atomic files and dtypes."""

import random

import numpy as np
import pytest
import torch

from dinov2.errors import unknown_name
from dinov2.utils.atomic import atomic_path, write_text
from dinov2.utils.dtype import autocast, compute_dtype, full_float32
from dinov2.utils.rng import derive_seed, seeded

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def draw() -> tuple[float, float, float]:
    return float(torch.rand(1)), float(np.random.rand()), random.random()


def test_seeded_draws_are_a_function_of_the_seed_and_leave_no_trace():
    before = (torch.get_rng_state().clone(), np.random.get_state()[1].copy(), random.getstate())
    with seeded(5):
        first = draw()
    with seeded(6):
        other = draw()
    with seeded(5):
        assert draw() == first
    assert all(a != b for a, b in zip(first, other, strict=True))
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    assert random.getstate() == before[2]


def test_derived_seeds_do_not_collide():
    seeds = {derive_seed(a, b, c) for a in range(20) for b in range(20) for c in range(20)}
    assert len(seeds) == 8000
    assert derive_seed(1, 2) != derive_seed(2, 1)
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_atomic_file_is_whole_or_the_old_one(tmp_path):
    path = tmp_path / "folder" / "file.txt"
    write_text(path, "old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert [p.name for p in path.parent.iterdir()] == ["file.txt"]


@pytest.mark.parametrize(
    ("name", "device", "dtype"),
    [
        ("auto", CPU, torch.float32),
        ("auto", GPU, torch.bfloat16),
        ("fp16", CPU, torch.float32),
        ("fp16", GPU, torch.float16),
        ("bf16", CPU, torch.bfloat16),
        ("fp32", GPU, torch.float32),
    ],
)
def test_compute_dtype(name, device, dtype, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: True)
    assert compute_dtype(name, device) == dtype


def test_gpus_without_bfloat16_compute_in_float16(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    assert compute_dtype("auto", GPU) == torch.float16


def test_tf32_is_off_where_exactness_counts_and_back_afterwards():
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    with full_float32():
        assert not torch.backends.cuda.matmul.allow_tf32
    assert torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = before


def test_autocast_computes_in_the_named_dtype():
    linear, x = torch.nn.Linear(4, 4), torch.randn(2, 4)
    with autocast("bf16", CPU):
        assert linear(x).dtype == torch.bfloat16
    with autocast("fp16", CPU):
        assert linear(x).dtype == torch.float32


def test_unknown_names_without_a_near_one_list_all():
    assert "known: a, b" in str(unknown_name("letter", "zzz", ["b", "a"]))
