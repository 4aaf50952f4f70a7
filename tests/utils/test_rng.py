"""Seeds, and kernels that add in one order."""

import os

import torch

from dinov2.utils.rng import use_deterministic_kernels


def test_deterministic_kernels_are_asked_for_and_let_go(monkeypatch):
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    use_deterministic_kernels(True)
    assert torch.are_deterministic_algorithms_enabled()
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    use_deterministic_kernels(False)
    assert not torch.are_deterministic_algorithms_enabled()
