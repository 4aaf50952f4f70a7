"""The linear probe on features that are kept: no image is read again, and no crop is drawn."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch

from dinov2.data.permutation import Permutation
from dinov2.utils.rng import Draw

from .features import Features
from .folds import hold_out
from .linear_heads import LinearHeads, LinearSettings, LinearTraining, best_head
from .linear_model import HeldOutScore, LinearModel


class LinearFit(NamedTuple):
    """The chosen head, and the score of every head on the samples that it was chosen on."""

    model: LinearModel
    head: str
    scores: dict[str, HeldOutScore]


def fit_linear(
    train: Features,
    *,
    inputs: Mapping[str, slice],
    num_classes: int,
    device: torch.device,
    settings: LinearSettings = LinearSettings(),
    held_out: Features | None = None,
) -> LinearFit:
    """Train all heads, and choose one by its top-1 accuracy on held-out samples. Every rank does the same.

    Args:
        inputs: columns of the features by the name of their kind.
        held_out: to choose on; without them a share of the training samples, and the chosen head is then trained once
            more on all of these.
    """
    part = train
    if held_out is None:
        split = hold_out(train, share=settings.held_out, seed=settings.seed)
        part, held_out_part = train.select(split.train), train.select(split.test)
    else:
        held_out_part = held_out
    heads = train_heads(part, inputs, num_classes=num_classes, device=device, settings=settings)
    scores = heads.scores(held_out_part)
    best = best_head(scores)
    if held_out is not None:
        return LinearFit(heads.model(best), best, scores)
    kind, rate = heads.place(best)
    alone = replace(settings, learning_rates=(settings.learning_rates[rate],))
    again = train_heads(train, {kind: inputs[kind]}, num_classes=num_classes, device=device, settings=alone)
    return LinearFit(again.model(again.names[kind][0]), best, scores)


def train_heads(
    train: Features, inputs: Mapping[str, slice], *, num_classes: int, device: torch.device, settings: LinearSettings
) -> LinearHeads:
    """Heads for every kind of features and learning rate, trained."""
    heads = LinearHeads(inputs, settings.scaled_rates, num_classes=num_classes, seed=settings.seed).to(device)
    LinearTraining(heads, settings).run(cached_batches(train, settings, device, range(settings.iterations)))
    return heads


def cached_batches(train: Features, settings: LinearSettings, device: torch.device, steps: range) -> Iterator[Features]:
    """The batches of some steps on the device: every sample once an epoch, shuffled by seed and epoch."""
    for step in steps:
        rows = stream_samples(len(train.labels), step * settings.batch_size, settings.batch_size, settings.seed)
        batch = train.select(torch.from_numpy(rows))
        yield Features(batch.values.to(device), batch.labels.to(device))


def stream_samples(size: int, first: int, count: int, seed: int) -> np.ndarray:
    """Samples (count,) int64 at positions first, first + 1, ... of an endless shuffled stream of `size` samples."""
    epochs, places = np.divmod(np.arange(first, first + count), size)
    samples = np.empty(count, np.int64)
    for epoch in np.unique(epochs).tolist():
        chosen = epochs == epoch
        samples[chosen] = Permutation(size, seed, Draw.ORDER, epoch)(places[chosen])
    return samples
