"""One step of the training: micro-batches, gradients, optimiser, moving average.

With k micro-batches the gradient is the mean of theirs, and so is every logged loss. What looks at a batch as a
whole, looks at a micro-batch: centres move and Sinkhorn-Knopp balances k times a step, KoLeo finds neighbours
within one. Everything that counts or is scheduled, counts steps.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from math import isfinite
from typing import Any, TypeVar

import torch

from dinov2.data import Batch
from dinov2.distributed import get_global_rank
from dinov2.utils.rng import derive_seed

from .agreement import agree
from .collapse import collapse_indicators
from .evidence import Attempt
from .guards import nonfinite_figures
from .optimization import clip_gradients, gradient_norms, leave_out_step, loss_scale, step_optimizer
from .outputs import StepOutput, StepReport
from .schedules import ScheduleValues, apply_to_optimizer
from .ssl_meta_arch import NUM_GLOBAL_CROPS, SSLMetaArch
from .state import TrainState

T = TypeVar("T")


def micro_batches(loader: Iterable[T], size: int) -> Iterator[list[T]]:
    """The batches of an endless loader in groups of `size`, one for each step."""
    batches = iter(loader)
    while group := list(islice(batches, size)):
        yield group


def train_step(
    cfg: Any,
    state: TrainState,
    batches: Sequence[Batch],
    values: ScheduleValues,
    *,
    counts: Mapping[str, int] | None = None,
) -> StepReport:
    """One step of student and teacher on its micro-batches; nothing changes where a figure of it is not finite.

    Args:
        counts: what this rank has counted, to be added up over ranks by the step's own reduction.
    Raises:
        NonFiniteError: on all ranks, if such a step has to stop the run.
    """
    model, optimizer = state.model, state.optimizer
    # Dropped branches are a function of seed, step and rank, so no generator has to be saved.
    torch.manual_seed(derive_seed(cfg.train.seed, state.iteration, get_global_rank()))
    apply_to_optimizer(values, optimizer)
    optimizer.zero_grad(set_to_none=True)
    centers = [center.clone() for center in model.centers()]
    observe = is_due(cfg.train.indicators_every, state.iteration)
    outputs = accumulate_gradients(model, batches, values.teacher_temp, observe=observe)
    norms = gradient_norms(model, optimizer)
    agreed = agree({**StepOutput.mean(outputs).figures(), **norms, **loss_scale(model)}, counts or {})
    wrong = nonfinite_figures(agreed.means, state.iteration)
    if wrong:
        leave_out_step(model, centers)
        attempt = Attempt(state.iteration, values, agreed.means, model.student, norms, outputs, batches)
        state.guard.refuse(attempt, wrong)
        return StepReport(figures_to_log(values, batches, {}), state.guard.figures(), agreed.sums)
    state.guard.accept()
    clip_gradients(model, norms, cfg.optim.clip_grad)
    step_optimizer(model, optimizer)
    model.update_teacher(values.momentum)
    observation = outputs[-1].observation
    indicators = {} if observation is None else collapse_indicators(observation)
    return StepReport(
        figures_to_log(values, batches, agreed.means), {**state.guard.figures(), **indicators}, agreed.sums
    )


def is_due(every: int, iteration: int) -> bool:
    """Whether what comes every so many iterations (0: never) comes with this one."""
    return every > 0 and iteration % every == 0


def figures_to_log(values: ScheduleValues, batches: Sequence[Batch], means: Mapping[str, float]) -> dict[str, float]:
    """Schedules, tiles of this rank, and means; but no norm of float16 gradients that have overflowed."""
    scheduled = {
        "lr": values.lr,
        "wd": values.weight_decay,
        "mom": values.momentum,
        "last_layer_lr": values.last_layer_lr,
        "current_batch_size": sum(len(batch["collated_global_crops"]) for batch in batches) / NUM_GLOBAL_CROPS,
    }
    finite = {name: mean for name, mean in means.items() if isfinite(mean)}
    return {**scheduled, **finite, "teacher_temp": values.teacher_temp}


def accumulate_gradients(
    model: SSLMetaArch, batches: Sequence[Batch], teacher_temp: float, *, observe: bool = False
) -> list[StepOutput]:
    """Leave the mean gradient of all micro-batches on the student, averaged over ranks once.

    Args:
        observe: whether the last micro-batch is observed.
    Returns:
        What each micro-batch gave.
    """
    outputs = []
    for number, batch in enumerate(batches, start=1):
        last = number == len(batches)
        with model.gradient_sync(last):
            outputs.append(
                model.forward_backward(batch, teacher_temp, share=1 / len(batches), observe=observe and last)
            )
    return outputs
