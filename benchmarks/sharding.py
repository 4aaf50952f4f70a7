"""Memory and speed of a training step by sharding strategy, against one process with the same batch per process.

torchrun --nproc_per_node=8 benchmarks/sharding.py                                on GPUs, ViT-S, ViT-B and ViT-L
torchrun --nproc_per_node=2 benchmarks/sharding.py --arch vit_tiny --steps 2      a trial on a CPU
"""

import argparse
import gc
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from dinov2 import distributed
from dinov2.configs import complete_config
from dinov2.fsdp import local_parameters
from dinov2.train.guards import NonFiniteGuard
from dinov2.train.optimization import build_grad_scaler, build_optimizer
from dinov2.train.schedules import ScheduleValues
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.step import train_step

STRATEGIES = ("NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD")
PATCH = 14
WARM_UP = 2  # steps that are not timed
MODULES = ("backbone", "dino_head", "ibot_head")


class Sizes(NamedTuple):
    """How large a step is: tiles per process, pixels of crops, prototypes."""

    batch: int
    global_crop: int
    local_crop: int
    prototypes: int


GPU_SIZES = Sizes(batch=32, global_crop=224, local_crop=98, prototypes=65536)
CPU_SIZES = Sizes(batch=2, global_crop=56, local_crop=28, prototypes=1024)


class Measurement(NamedTuple):
    """Seconds of a step; bytes of parameters, gradients and moments; most bytes allocated at a time (GPU)."""

    seconds: float
    state: int
    peak: int


def configuration(arch: str, strategy: str, sizes: Sizes, *, activation_checkpointing: bool) -> Any:
    """DINOv2's defaults but for the sizes."""
    modules = {name: {"sharding_strategy": strategy} for name in MODULES}
    return complete_config(
        {
            "compute_precision": {"student": modules, "teacher": modules},
            "student": {"arch": arch, "patch_size": PATCH},
            "dino": {"head_n_prototypes": sizes.prototypes},
            "crops": {"global_crops_size": sizes.global_crop, "local_crops_size": sizes.local_crop},
            "train": {
                "centering": "sinkhorn_knopp",
                "activation_checkpointing": activation_checkpointing,
                "indicators_every": 0,
            },
        }
    )


def synthetic_batch(sizes: Sizes, num_locals: int, device: torch.device) -> dict[str, Any]:
    """Noise, with 30 % of the patches of every other global crop masked."""
    generator = torch.Generator().manual_seed(0)
    masks = torch.rand(2 * sizes.batch, (sizes.global_crop // PATCH) ** 2, generator=generator) < 0.3  # (2B, N)
    masks[::2] = False
    indices = masks.flatten().nonzero().flatten()  # (n,)
    batch = {
        "collated_global_crops": torch.randn(2 * sizes.batch, 3, sizes.global_crop, sizes.global_crop),
        "collated_local_crops": torch.randn(num_locals * sizes.batch, 3, sizes.local_crop, sizes.local_crop),
        "collated_masks": masks,
        "mask_indices_list": indices,
        "masks_weight": (1 / masks.sum(dim=-1).clamp_min(1.0))[:, None].expand_as(masks)[masks],
        "n_masked_patches": torch.tensor([len(indices)]),
    }
    return {key: value.to(device) for key, value in batch.items()}


def measure(cfg: Any, sizes: Sizes, steps: int) -> Measurement:
    """Time steps on one batch, which stays on the device."""
    device = distributed.get_device()
    model = SSLMetaArch(cfg).to(device).train()
    model.fp16_scaler = build_grad_scaler(cfg, model.student.keys(), device)
    model.prepare_for_distributed_training()
    state = SimpleNamespace(
        model=model,
        optimizer=build_optimizer(cfg, model.get_params_groups()),
        guard=NonFiniteGuard.from_config(cfg, name_tile=str),
        iteration=0,
    )
    batch = synthetic_batch(sizes, cfg.crops.local_crops_number, device)
    values = ScheduleValues(lr=1e-5, last_layer_lr=1e-5, weight_decay=0.04, momentum=0.99, teacher_temp=0.07)
    for _ in range(WARM_UP):
        train_step(cfg, state, [batch], values)
    started = now(device)
    for _ in range(steps):
        train_step(cfg, state, [batch], values)
    seconds = (now(device) - started) / steps
    peak = torch.cuda.max_memory_allocated() if device.type == "cuda" else 0
    return Measurement(seconds, held_bytes(model), peak)


def now(device: torch.device) -> float:
    """The time when all ranks have done all their work so far."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    distributed.barrier()
    return time.perf_counter()


def release_memory() -> None:
    """Forget the model before: sharded modules are part of reference cycles."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def held_bytes(model: SSLMetaArch) -> int:
    """What this process keeps between steps: float32 student and teacher, and two moments of the student."""
    student, teacher = (sum(p.nbytes for p in local_parameters(net)) for net in (model.student, model.teacher))
    return 3 * student + teacher


def report(arch: str, sizes: Sizes, rows: dict[str, Measurement]) -> None:
    """Print a table; ratios are to the first row, one process."""
    print(f"\n{arch}/{PATCH}, {sizes.batch} tiles of {sizes.global_crop} px per process and step")
    print(f"{'':>16} {'tiles/s':>9} {'ratio':>6} {'state MB':>9} {'ratio':>6} {'peak MB':>9} {'ratio':>6}")
    first = next(iter(rows.values()))
    for name, row in rows.items():
        processes = 1 if row is first else distributed.get_global_size()
        speed = processes * first.seconds / row.seconds
        peak = f"{row.peak / 2**20:9.0f} {row.peak / first.peak:6.2f}" if row.peak else f"{'-':>9} {'-':>6}"
        print(
            f"{name:>16} {processes * sizes.batch / row.seconds:9.1f} {speed:6.2f} "
            f"{row.state / 2**20:9.1f} {row.state / first.state:6.2f} {peak}"
        )


def parse_arguments() -> argparse.Namespace:
    """The options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", nargs="+", default=["vit_small", "vit_base", "vit_large"])
    parser.add_argument("--steps", type=int, default=20, help="timed steps")
    parser.add_argument("--batch", type=int, help="tiles per process (default: 32 on a GPU, 2 on a CPU)")
    parser.add_argument("--activation-checkpointing", action="store_true", help="compute blocks twice")
    return parser.parse_args()


def main() -> None:
    """Measure one process on rank 0 while the others wait to be joined, then all strategies on all ranks."""
    args = parse_arguments()
    sizes = GPU_SIZES if torch.cuda.is_available() else CPU_SIZES
    sizes = sizes._replace(batch=args.batch or sizes.batch)

    def run(arch: str, strategy: str) -> Measurement:
        cfg = configuration(arch, strategy, sizes, activation_checkpointing=args.activation_checkpointing)
        release_memory()
        return measure(cfg, sizes, args.steps)

    is_first = os.environ.get("RANK", "0") == "0"
    alone = {arch: run(arch, "NO_SHARD") for arch in args.arch} if is_first else {}
    distributed.enable()
    for arch in args.arch:
        rows = {strategy: run(arch, strategy) for strategy in STRATEGIES} if distributed.is_enabled() else {}
        if distributed.is_main_process():
            report(arch, sizes, {"one process": alone[arch], **rows})
    distributed.disable()


if __name__ == "__main__":
    main()
