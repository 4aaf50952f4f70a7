"""How fast a run is: tiles per second, share of waiting for data, and share of the GPU's peak."""

import re
from collections.abc import Mapping
from typing import Any

import torch

from .ssl_meta_arch import NUM_GLOBAL_CROPS, SSLMetaArch

# Dense 16-bit tensor-core peaks in FLOP/s, from the makers' data sheets.
PEAK_FLOPS = {
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "V100": 125e12,
    "RTX 4090": 165e12,
}


def peak_flops(device: torch.device) -> float | None:
    """Peak FLOP/s of a GPU, None where it is not known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((flops for part, flops in PEAK_FLOPS.items() if re.search(rf"\b{part}\b", name)), None)


def training_flops_per_image(model: SSLMetaArch) -> float:
    """Floating-point operations of one image's crops in one step.

    A forward pass of the teacher's global crops, and three times (forward, and backward with respect to
    inputs and weights) one of the student's crops; class-token heads included, as many as there are crops.
    """
    crops, backbone = model.cfg.crops, model.teacher["backbone"]
    num_locals = crops.local_crops_number
    global_crop = forward_flops(backbone, crops.global_crops_size)
    local_crop = forward_flops(backbone, crops.local_crops_size) if num_locals else 0.0
    head_row = 2.0 * sum(p.numel() for p in model.teacher["dino_head"].parameters() if p.ndim == 2)
    teacher = NUM_GLOBAL_CROPS * (global_crop + head_row)
    student = teacher + num_locals * (local_crop + head_row)
    return teacher + 3 * student


def forward_flops(backbone: Any, size: int) -> float:
    """FLOPs of one (1, 3, size, size) image: every matrix once for each token, and attention's two products.

    By formula, since counters see no attention in `scaled_dot_product_attention`, or do so in some versions only; at
    518 px with patches of 14 that is more than a third of a ViT-S. Norms, LayerScale and activations are left out.
    """
    patches = (size // backbone.patch_size) ** 2
    tokens = 1 + backbone.num_register_tokens + patches
    matrices = sum(p.numel() for p in backbone.blocks.parameters() if p.ndim == 2)
    attention = 2 * tokens * backbone.embed_dim * backbone.n_blocks
    return 2.0 * (patches * backbone.patch_embed.proj.weight.numel() + tokens * (matrices + attention))


def describe_step(line: Mapping[str, float]) -> str:
    """What the log says of a step, short enough for two lines of a terminal; `training_metrics.json` has the rest."""
    shown = {
        "total_loss": lambda value: f"loss: {value:.4g}",
        "lr": lambda value: f"lr: {value:.2e}",
        "tiles_per_second": lambda value: f"{value:.3g} tiles/s" if value < 1000 else f"{value:.0f} tiles/s",
        "data_wait_share": lambda value: f"wait: {value:.0%}",
        "max_mem_mb": lambda value: f"{value / 1024:.1f} GiB",
    }
    return "  ".join(text(line[name]) for name, text in shown.items() if name in line)


class ThroughputMeter:
    """Turns the times of an iteration into figures for the log."""

    def __init__(self, model: SSLMetaArch, *, global_batch_size: int, world_size: int) -> None:
        self.global_batch_size = global_batch_size
        peak = peak_flops(model.device)
        self._flops_share = None
        if peak is not None:
            self._flops_share = training_flops_per_image(model) * global_batch_size / (peak * world_size)

    def __call__(self, iter_time: float, data_time: float) -> dict[str, float]:
        """Tiles per second, share of the time waiting for data, and on a GPU memory and model FLOP utilisation.

        Args:
            iter_time, data_time: mean seconds of an iteration, and of its wait for data.
        """
        figures = {"tiles_per_second": self.global_batch_size / iter_time, "data_wait_share": data_time / iter_time}
        if self._flops_share is not None:
            figures["mfu"] = self._flops_share / iter_time
        if torch.cuda.is_available():
            figures["max_mem_mb"] = torch.cuda.max_memory_allocated() / 2**20
        return figures
