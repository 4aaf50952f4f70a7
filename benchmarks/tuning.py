"""What an evaluation during training costs: features of 7,000 tiles by two networks, and probes on them.

python benchmarks/tuning.py                    on a GPU: ViT-L, tiles of 224 px
OMP_NUM_THREADS=2 python benchmarks/tuning.py --arch vit_small    on a CPU: tiles of 56 px
"""

import argparse
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from PIL import Image
from sharding import CPU_SIZES, GPU_SIZES, PATCH, Sizes, configuration, measure, now, release_memory

from dinov2 import distributed
from dinov2.data import make_dataset
from dinov2.data.transforms import make_classification_eval_transform
from dinov2.eval.bootstrap import bootstrap_intervals
from dinov2.eval.features import Extraction, Features, extract_features
from dinov2.eval.linear_heads import LinearSettings
from dinov2.eval.pair_scores import PairSettings, score_pair
from dinov2.eval.tokens import backbone_network, evaluated
from dinov2.train.ssl_meta_arch import SSLMetaArch

HOUR = 3600.0
TARGET = 2.0  # per cent of an hour that an evaluation may take
CLASSES = 9
GROUPS = 50  # slides of the test tiles
LINEAR = LinearSettings(batch_size=128, iterations=500)  # the defaults of `tune.linear`


def write_tiles(folder: Path, count: int) -> None:
    """JPEGs of 256 px, of as many details as a tile of tissue has."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    for number in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8))
        coarse.resize((256, 256), Image.Resampling.BICUBIC).save(folder / f"{number:05d}.jpg", quality=85)


def extraction_rate(cfg: Any, settings: PairSettings, sizes: Sizes, args: argparse.Namespace) -> tuple[float, int]:
    """Tiles per second through student and teacher, decoding included; and the width of their features."""
    device = distributed.get_device()
    model = SSLMetaArch(cfg).to(device)
    backbones = {name: model.get_submodule(f"{name}.backbone") for name in ("teacher", "student")}
    networks = {
        name: backbone_network(one, settings.kind, dtype="auto", device=device) for name, one in backbones.items()
    }
    how = Extraction(batch_size=128, num_workers=args.workers)
    transform = make_classification_eval_transform(resize_size=sizes.global_crop, crop_size=sizes.global_crop)
    with tempfile.TemporaryDirectory() as folder, evaluated(*backbones.values()):
        write_tiles(Path(folder, "tiles"), args.measured)
        dataset = make_dataset(dataset_str=f"ImageFolder:root={folder}", transform=transform)
        extract_features(networks, torch.utils.data.Subset(dataset, range(128)), device=device, how=how)
        started = now(device)
        found = extract_features(networks, dataset, device=device, how=how)
        return args.measured / (now(device) - started), found["teacher"].values.shape[1]


def make_features(samples: int, width: int, seed: int) -> Features:
    """Noise around a centre for each class."""
    centres = torch.randn(CLASSES, width, generator=torch.Generator().manual_seed(0))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(CLASSES, (samples,), generator=generator)
    values = centres[labels] + 3 * torch.randn(samples, width, generator=generator)
    return Features(values.to(distributed.get_device()), labels, torch.arange(samples) * GROUPS // samples)


def seconds_of(function: Callable[[], object]) -> float:
    """How long a function takes."""
    device = distributed.get_device()
    started = now(device)
    function()
    return now(device) - started


def probe_seconds(args: argparse.Namespace, width: int) -> dict[str, float]:
    """Seconds that each part of an evaluation takes for both networks; intervals are the teacher's only."""
    query, test = make_features(args.query, width, seed=1), make_features(args.test, width, seed=2)
    few = torch.arange(200)

    def seconds(**options: Any) -> float:
        settings = replace(PairSettings(linear=LINEAR, resamples=0), **options)
        columns = slice(None) if "linear" in settings.probes else settings.class_token(width // 2)
        pair = query.columns(columns), test.columns(columns)
        score = partial(score_pair, settings=settings, num_classes=CLASSES, device=distributed.get_device())
        score(*(features.select(few) for features in pair))  # modules are imported, kernels chosen
        return seconds_of(lambda: score(*pair))

    votes = torch.rand(args.test, CLASSES)
    return {
        "k-NN, four k": 2 * seconds(),
        "linear probe": 2 * seconds(probes=("linear",)),
        "logistic regression": 2 * seconds(probes=("log_regression",)),
        "200 resamples": seconds_of(lambda: bootstrap_intervals(votes, test.labels, groups=test.groups, resamples=200)),
    }


def report(training: float, extraction: float, probes: dict[str, float], args: argparse.Namespace) -> None:
    """Print all figures, and what evaluations cost that have more and more probes."""
    tiles = args.query + args.test
    features = tiles / extraction
    print(f"training {training:.1f} tiles/s, features of both networks {extraction:.1f} tiles/s")
    print(f"features of {args.query:,} query and {args.test:,} test tiles: {features:.1f} s")
    for name, seconds in probes.items():
        print(f"{name}: {seconds:.2f} s")
    knn = features + probes["k-NN, four k"] + probes["200 resamples"]
    linear = knn + probes["linear probe"] + probes["200 resamples"]
    for name, seconds in (("k-NN", knn), ("k-NN and linear", linear)):
        tiles = training * seconds
        enough = 100 * tiles / TARGET / HOUR
        print(f"one evaluation with {name}: {seconds:.1f} s, {100 * seconds / HOUR:.2f} % of an hour,")
        print(f"  as long as {tiles:,.0f} tiles of training; under {TARGET} % from {enough:.1f} training tiles/s on")


def main() -> None:
    """Measure a training step, the extraction and the probes on this machine."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", default="vit_large")
    parser.add_argument("--query", type=int, default=5_000)
    parser.add_argument("--test", type=int, default=2_000)
    parser.add_argument("--measured", type=int, default=1_024, help="tiles that the rate of extraction is measured on")
    parser.add_argument("--workers", type=int, default=0, help="processes that decode tiles for the extraction")
    parser.add_argument("--steps", type=int, default=10, help="timed training steps")
    args = parser.parse_args()
    sizes = GPU_SIZES if torch.cuda.is_available() else CPU_SIZES._replace(batch=16)
    cfg = configuration(args.arch, "NO_SHARD", sizes, activation_checkpointing=False)
    print(f"{args.arch}/{PATCH}, crops of {sizes.global_crop} px, {torch.get_num_threads()} threads")
    training = sizes.batch / measure(cfg, sizes, args.steps).seconds
    release_memory()
    extraction, width = extraction_rate(cfg, PairSettings(probes=("knn", "linear")), sizes, args)
    release_memory()
    report(training, extraction, probe_seconds(args, width), args)


if __name__ == "__main__":
    main()
