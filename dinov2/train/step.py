"""One step of the training: micro-batches, gradients, optimiser, moving average.

With k micro-batches the gradient is the mean of theirs, and so is every logged loss. What looks at a batch as a
whole, looks at a micro-batch: centres move and Sinkhorn-Knopp balances k times a step, KoLeo finds neighbours
within one. Everything that counts or is scheduled, counts steps.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, TypeVar

import torch

from dinov2.data import Batch
from dinov2.distributed import get_global_rank
from dinov2.utils.rng import derive_seed

from .optimization import average_over_ranks, check_finite, clip_gradients, step_optimizer
from .outputs import StepOutput
from .schedules import ScheduleValues, apply_to_optimizer
from .ssl_meta_arch import NUM_GLOBAL_CROPS, SSLMetaArch
from .state import TrainState

T = TypeVar("T")


def micro_batches(loader: Iterable[T], size: int) -> Iterator[list[T]]:
    """The batches of an endless loader in groups of `size`, one for each step."""
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def train_step(cfg: Any, state: TrainState, batches: Sequence[Batch], values: ScheduleValues) -> dict[str, float]:
    """One step of student and teacher on its micro-batches; returns the figures to log."""
    model, optimizer = state.model, state.optimizer
    # Dropped branches are a function of seed, step and rank, so no generator has to be saved.
    torch.manual_seed(derive_seed(cfg.train.seed, state.iteration, get_global_rank()))
    apply_to_optimizer(values, optimizer)
    optimizer.zero_grad(set_to_none=True)
    output = accumulate_gradients(model, batches, values.teacher_temp)
    grad_norms = clip_gradients(model, optimizer, cfg.optim.clip_grad)
    figures = average_over_ranks(output, grad_norms)
    check_finite(figures, state.iteration, scaled=model.fp16_scaler is not None)
    step_optimizer(model, optimizer)
    model.update_teacher(values.momentum)
    scheduled = {
        "lr": values.lr,
        "wd": values.weight_decay,
        "mom": values.momentum,
        "last_layer_lr": values.last_layer_lr,
        "current_batch_size": sum(len(batch["collated_global_crops"]) for batch in batches) / NUM_GLOBAL_CROPS,
    }
    return {**scheduled, **figures, "teacher_temp": values.teacher_temp}


def accumulate_gradients(model: SSLMetaArch, batches: Sequence[Batch], teacher_temp: float) -> StepOutput:
    """Leave the mean gradient of all micro-batches on the student, averaged over ranks once; returns mean losses."""
    outputs = []
    for number, batch in enumerate(batches, start=1):
        with model.gradient_sync(number == len(batches)):
            outputs.append(model.forward_backward(batch, teacher_temp, share=1 / len(batches)))
    return StepOutput.mean(outputs)
