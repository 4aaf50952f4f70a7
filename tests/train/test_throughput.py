"""Counted operations against a count by hand."""

import pytest
import torch

from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.throughput import ThroughputMeter, _forward_flops, peak_flops, training_flops_per_image


@pytest.fixture(scope="module")
def model() -> SSLMetaArch:
    return SSLMetaArch(
        {
            "student": {"arch": "vit_tiny", "patch_size": 14},
            "dino": {"head_n_prototypes": 64, "head_hidden_dim": 32, "head_bottleneck_dim": 16},
            "crops": {"global_crops_size": 56, "local_crops_size": 28, "local_crops_number": 3},
        }
    )


def by_hand(size: int) -> float:
    """Operations of ViT-Ti/14: patch projection, linear layers, attention's two products."""
    patches, width, blocks = (size // 14) ** 2, 192, 12
    tokens = patches + 1
    linear = tokens * 12 * width * width + 2 * tokens * tokens * width
    return 2 * (patches * 3 * 14 * 14 * width + blocks * linear)


@pytest.mark.parametrize("size", [28, 56])
def test_forward_flops(model, size):
    counted = _forward_flops(model.teacher["backbone"], size, torch.device("cpu"))
    assert counted == pytest.approx(by_hand(size), rel=0.03)  # fvcore counts norms too


def test_a_step_is_one_teacher_and_three_student_passes(model):
    head = 2 * (192 * 32 + 32 * 32 + 32 * 16 + 16 * 64 + 64)
    teacher = 2 * (by_hand(56) + head)
    expected = teacher + 3 * (teacher + 3 * (by_hand(28) + head))
    assert training_flops_per_image(model) == pytest.approx(expected, rel=0.03)


def test_figures_on_a_cpu(model):
    meter = ThroughputMeter(model, global_batch_size=32, world_size=1)
    figures = meter(0.5, 0.125)
    assert (figures["tiles_per_second"], figures["data_wait_share"]) == (64.0, 0.25)
    assert peak_flops(torch.device("cpu")) is None


def test_model_flop_utilisation_on_a_known_gpu(model, monkeypatch):
    monkeypatch.setattr("dinov2.train.throughput.peak_flops", lambda device: 1e12)
    figures = ThroughputMeter(model, global_batch_size=8, world_size=2)(2.0, 0.0)
    assert figures["mfu"] == pytest.approx(training_flops_per_image(model) * 8 / (2.0 * 2e12))
