"""Counted operations against a count by hand."""

import logging

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from dinov2.logging import MetricLogger
from dinov2.models.vision_transformer import vit_tiny
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.throughput import (
    ThroughputMeter,
    describe_step,
    forward_flops,
    peak_flops,
    training_flops_per_image,
)


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


@pytest.mark.parametrize("size", [28, 56, 224])
def test_forward_flops(model, size):
    assert forward_flops(model.teacher["backbone"], size) == by_hand(size)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"num_register_tokens": 4, "ffn_layer": "swiglufused"},
        {"patch_size": 16, "block_chunks": 2, "init_values": 1.0},
    ],
)
def test_they_are_what_torch_counts_where_it_sees_attention(settings):
    backbone = vit_tiny(**{"patch_size": 14, "block_chunks": 0, "img_size": 224, **settings}).eval()
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter, torch.no_grad():
        backbone(torch.zeros(1, 3, 224, 224))
    assert forward_flops(backbone, 224) == counter.get_total_flops()


def test_a_step_is_one_teacher_and_three_student_passes(model):
    head = 2 * (192 * 32 + 32 * 32 + 32 * 16 + 16 * 64 + 64)
    teacher = 2 * (by_hand(56) + head)
    expected = teacher + 3 * (teacher + 3 * (by_hand(28) + head))
    assert training_flops_per_image(model) == pytest.approx(expected, rel=1e-12)


def test_figures_on_a_cpu(model):
    meter = ThroughputMeter(model, global_batch_size=32, world_size=1)
    figures = meter(0.5, 0.125)
    assert (figures["tiles_per_second"], figures["data_wait_share"]) == (64.0, 0.25)
    assert peak_flops(torch.device("cpu")) is None


def test_model_flop_utilisation_on_a_known_gpu(model, monkeypatch):
    monkeypatch.setattr("dinov2.train.throughput.peak_flops", lambda device: 1e12)
    figures = ThroughputMeter(model, global_batch_size=8, world_size=2)(2.0, 0.0)
    assert figures["mfu"] == pytest.approx(training_flops_per_image(model) * 8 / (2.0 * 2e12))


def test_a_line_of_the_log_fits_two_lines_of_a_terminal(tmp_path, caplog):
    """With the largest numbers that a run on a GPU has, and what stands before every line."""
    figures = {"tiles_per_second": 12345.6, "data_wait_share": 1.0, "mfu": 0.55, "max_mem_mb": 141_000.0}
    metrics = MetricLogger(derive=lambda iter_time, data_time: figures, describe=describe_step)
    caplog.set_level(logging.INFO)
    for _ in metrics.log_every(iter([0]), 10, "Training", 1_250_000, 1_249_990):
        metrics.timers["iter_time"].update(5e4)
        metrics.update(total_loss=-12.3456, lr=1.23456e-5, **{f"figure_{number}": 1.0 for number in range(20)})
    (line, _) = caplog.messages
    prefix = "I20260101 12:00:00 4194304 dinov2 helpers.py:222] "
    assert len(prefix + line) <= 160
    assert "loss: -12.35  lr: 1.23e-05  12346 tiles/s  wait: 100%  137.7 GiB" in line
