"""Training steps of a tiny model on batches made by rule, for one process or several."""

from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from golden import normal
from omegaconf import OmegaConf
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

from dinov2.configs import complete_config
from dinov2.distributed import get_global_rank, get_global_size
from dinov2.models.vision_transformer import ARCHITECTURES, DinoVisionTransformer
from dinov2.train.guards import NonFiniteGuard
from dinov2.train.optimization import build_optimizer
from dinov2.train.schedules import ScheduleValues
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.step import train_step

GLOBAL, LOCAL, PATCH = 42, 28, 14  # pixels
NUM_PATCHES = (GLOBAL // PATCH) ** 2

# Rows of 30, 50, 21 or 10 do not divide evenly over four ranks, and those of a head's first layer not even over two.
ARCHITECTURES.setdefault("vit_minute", partial(DinoVisionTransformer, embed_dim=30, depth=3, num_heads=3))

HEAD = {"head_n_prototypes": 50, "head_hidden_dim": 21, "head_bottleneck_dim": 10}


def tiny_config(strategy: str = "NO_SHARD", **sections: dict) -> Any:
    """A complete configuration: float32, no dropped branches, and the same sharding for everything."""
    modules = {name: {"sharding_strategy": strategy} for name in ("backbone", "dino_head", "ibot_head")}
    base = {
        "compute_precision": {"student": modules, "teacher": modules},
        "dino": dict(HEAD),
        "ibot": dict(HEAD),
        "student": {"arch": "vit_minute", "patch_size": PATCH, "drop_path_rate": 0.0, "layerscale": 0.5},
        "crops": {"global_crops_size": GLOBAL, "local_crops_size": LOCAL, "local_crops_number": 2},
        "train": {"batch_size_per_gpu": 4},
    }
    return complete_config(OmegaConf.merge(base, sections))


def make_batch(tag: str, images: range, masked: Any = lambda image: 3) -> dict:
    """A batch of some images of the endless series `tag`.

    Args:
        masked: image -> patches masked in its first global crop; the second has one mask less, if any.
    """
    crops = [
        (normal(f"{tag}:{i}:global", (2, 3, GLOBAL, GLOBAL)), normal(f"{tag}:{i}:local", (2, 3, LOCAL, LOCAL)))
        for i in images
    ]
    masks = torch.zeros(2, len(images), NUM_PATCHES, dtype=torch.bool)
    for row, image in enumerate(images):
        for crop in range(2):
            order = normal(f"{tag}:{image}:mask:{crop}", (NUM_PATCHES,)).argsort()
            masks[crop, row, order[: max(masked(image) - crop, 0)]] = True
    masks = masks.flatten(0, 1)  # (2B, N)
    indices = masks.flatten().nonzero().flatten()
    return {
        "collated_global_crops": torch.stack([crop[0] for crop in crops], dim=1).flatten(0, 1),
        "collated_local_crops": torch.stack([crop[1] for crop in crops], dim=1).flatten(0, 1),
        "collated_masks": masks,
        "mask_indices_list": indices,
        "masks_weight": (1 / masks.sum(-1).clamp(min=1.0))[:, None].expand_as(masks)[masks],
        "upperbound": len(indices),
        "n_masked_patches": torch.tensor([len(indices)]),
    }


def batches_of_rank(step: int, *, images: int = 4, parts: int = 1, masked: Any = lambda image: 3) -> list[dict]:
    """This rank's share of the micro-batches of a step; all ranks together have `images` images in each."""
    share = images // get_global_size()
    first = get_global_rank() * share
    return [make_batch(f"step{step}.{part}", range(first, first + share), masked) for part in range(parts)]


class KoLeoOfRanks(nn.Module):
    """What several ranks do with KoLeo, in one process: the mean over the ranks' shares of the batch."""

    def __init__(self, koleo: nn.Module, ranks: int) -> None:
        super().__init__()
        self.koleo, self.ranks = koleo, ranks

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.stack([self.koleo(share) for share in tokens.chunk(self.ranks)]).mean()


class Trained(NamedTuple):
    """The figures of every step, and the whole state dict at the end."""

    figures: list[dict[str, float]]
    weights: dict[str, np.ndarray]


def build(cfg: Any, *, koleo_ranks: int = 1) -> SSLMetaArch:
    """A model that is ready to train; weights are drawn with another seed on every rank."""
    torch.manual_seed(get_global_rank())
    model = SSLMetaArch(cfg).train()
    if koleo_ranks > 1:
        model.koleo_loss = KoLeoOfRanks(model.koleo_loss, koleo_ranks)
    model.prepare_for_distributed_training()
    return model


def state_of(cfg: Any, model: SSLMetaArch) -> Any:
    """What `train_step` reads of a training state."""
    optimizer = build_optimizer(cfg, model.get_params_groups())
    return SimpleNamespace(model=model, optimizer=optimizer, guard=guard_of(cfg), iteration=0)


def guard_of(cfg: Any) -> NonFiniteGuard:
    """The guard that a configuration asks for."""
    return NonFiniteGuard.from_config(cfg, name_tile=lambda tile: f"tile {tile}")


def take_steps(cfg: Any, state: Any, steps: int, **batches: Any) -> list[dict[str, float]]:
    """Go on for some steps."""
    figures = []
    for _ in range(steps):
        values = ScheduleValues(lr=1e-3, last_layer_lr=1e-3, weight_decay=0.04, momentum=0.9, teacher_temp=0.05)
        figures.append(train_step(cfg, state, batches_of_rank(state.iteration, **batches), values).figures)
        state.iteration += 1
    return figures


def train_tiny(cfg: Any, steps: int, *, koleo_ranks: int = 1, **batches: Any) -> Trained:
    """Train from scratch; `batches` goes to `batches_of_rank`."""
    model = build(cfg, koleo_ranks=koleo_ranks)
    figures = take_steps(cfg, state_of(cfg, model), steps, **batches)
    return Trained(figures, whole_weights(model))


def whole_weights(model: SSLMetaArch) -> dict[str, np.ndarray]:
    """All parameters and centres, gathered, by name; arrays, since a tensor sent by a process dies with it."""
    weights = get_model_state_dict(model, options=StateDictOptions(full_state_dict=True))
    return {name: weight.numpy().copy() for name, weight in weights.items()}


def assert_same_training(found: Trained, expected: Trained, *, losses: float = 1e-5, others: float = 1e-4) -> None:
    """Compare every step's figures, to a relative tolerance, and the final weights."""
    for step, (ours, theirs) in enumerate(zip(found.figures, expected.figures, strict=True)):
        assert ours.keys() == theirs.keys()
        for name in theirs.keys() - {"current_batch_size"}:
            tolerance = losses if "loss" in name else others
            # KoLeo goes through zero.
            assert ours[name] == pytest.approx(theirs[name], rel=tolerance, abs=1e-6), (step, name)
    assert found.weights.keys() == expected.weights.keys()
    for name, weight in expected.weights.items():
        assert np.allclose(found.weights[name], weight, rtol=others, atol=others), name
