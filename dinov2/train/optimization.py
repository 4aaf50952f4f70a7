"""One optimiser step: unscale, clip, check, step."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer

from dinov2.distributed import all_reduce_sum, get_global_size
from dinov2.errors import UserError
from dinov2.utils.dtype import compute_dtype

from .ssl_meta_arch import SSLMetaArch, StepOutput


class NonFiniteError(UserError):
    """A loss or gradient that is NaN or infinite; no step was taken with it."""


def build_optimizer(cfg: Any, params_groups: list[dict[str, Any]], device: torch.device) -> AdamW:
    """AdamW over the student's parameter groups, in one kernel on a GPU."""
    betas = (cfg.optim.adamw_beta1, cfg.optim.adamw_beta2)
    return AdamW(params_groups, betas=betas, fused=device.type == "cuda" or None)


def build_grad_scaler(cfg: Any, device: torch.device) -> torch.amp.GradScaler | None:
    """A loss scaler where the configuration asks for one and some student module computes in float16."""
    modules = cfg.compute_precision.student.values()
    dtypes = {compute_dtype(module.mixed_precision.param_dtype, device) for module in modules}
    if cfg.compute_precision.grad_scaler and torch.float16 in dtypes:
        return torch.amp.GradScaler(device.type)
    return None


def clip_gradients(model: SSLMetaArch, optimizer: Optimizer, max_norm: float) -> dict[str, Tensor]:
    """Scale each student submodule's gradient to at most `max_norm` (0: leave it).

    Returns:
        The norm of each before clipping, () float32, by submodule.
    """
    if model.fp16_scaler:
        model.fp16_scaler.unscale_(optimizer)
    limit = max_norm or float("inf")
    return {
        f"grad_norm_{name}": torch.nn.utils.clip_grad_norm_(module.parameters(), limit, foreach=True)
        for name, module in model.student.items()
    }


def average_over_ranks(output: StepOutput, grad_norms: dict[str, Tensor]) -> dict[str, float]:
    """All figures of a step as numbers, losses averaged over ranks, with one reduction and one wait."""
    total = torch.stack(list(output.values())).sum()
    values = {"total_loss": total, **output, "loss_total_optimized": output.objective, **grad_norms}
    stacked = torch.stack([value.detach().float() for value in values.values()])
    averaged = all_reduce_sum(stacked) / get_global_size()
    return dict(zip(values, averaged.tolist(), strict=True))


def check_finite(figures: dict[str, float], iteration: int, *, scaled: bool) -> None:
    """Refuse to step with a loss or gradient that is no number.

    Args:
        scaled: gradients of a scaled float16 loss overflow now and then, and the scaler skips such steps.
    Raises:
        NonFiniteError: names what is wrong; the same on all ranks, since `figures` are.
    """
    wrong = [
        name
        for name, value in figures.items()
        if not abs(value) < float("inf") and not (scaled and name.startswith("grad_norm"))
    ]
    if wrong:
        shown = ", ".join(f"{name} = {figures[name]}" for name in wrong)
        raise NonFiniteError(
            f"iteration {iteration}: {shown}. Nothing was updated with it and the last checkpoint is good. Usual "
            "causes: a learning rate too high for the batch (optim.base_lr), fp16 without grad_scaler, damaged images"
        )


def step_optimizer(model: SSLMetaArch, optimizer: Optimizer) -> None:
    """Update the student; with a scaler, unless its gradients overflowed."""
    if model.fp16_scaler:
        model.fp16_scaler.step(optimizer)
        model.fp16_scaler.update()
    else:
        optimizer.step()
