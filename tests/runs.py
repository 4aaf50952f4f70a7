"""Small training runs for tests."""

import json
from pathlib import Path

from dinov2.train.train import get_args_parser, main

ELSEWHERE = "student.arch=vit_tiny"  # for a process that is not forked from the tests, and does not know vit_mini

# Crops of 28 px: a step takes a fraction of a second.
SMALL = [
    "student.arch=vit_mini",
    "student.patch_size=14",
    "student.drop_path_rate=0.2",
    "student.layerscale=1.0",
    "crops.global_crops_size=28",
    "crops.local_crops_size=14",
    "crops.local_crops_number=2",
    "dino.head_n_prototypes=64",
    "dino.head_hidden_dim=32",
    "dino.head_bottleneck_dim=16",
    "train.batch_size_per_gpu=4",
    "train.num_workers=0",
    "train.OFFICIAL_EPOCH_LENGTH=2",
    "train.save_frequency=1",
    "optim.max_iter=6",
    "optim.warmup_pct=0.2",
    "optim.freeze_last_layer_pct=0.2",
    "teacher.warmup_teacher_temp_pct=0.3",
    # Tests evaluate on the tiles that they train on.
    "tune.allow_overlap=[train_query,train_test,query_test]",
]


def arguments(images: Path, output: Path, *overrides: str) -> list[str]:
    return ["--input-dir", str(images), "--output-dir", str(output), *SMALL, *overrides]


def train(images: Path, output: Path, *overrides: str) -> None:
    main(get_args_parser().parse_intermixed_args(arguments(images, output, *overrides)))


def metrics_of(output: Path) -> list[dict]:
    return [json.loads(line) for line in (output / "training_metrics.json").read_text().splitlines()]
