"""Five optimisation steps reproduce the reference's losses, gradients, parameters and features."""

import numpy as np
import pytest
import torch
from golden import GOLDENS, assert_close, fill, load_figures, normal
from omegaconf import OmegaConf

from dinov2.train.schedules import ScheduleValues, apply_to_optimizer
from dinov2.train.ssl_meta_arch import SSLMetaArch

CASES = ["trace_centering_shared", "trace_registers_swiglu_nokoleo", "trace_sinkhorn_separate"]
IMAGES = 4  # per batch
GLOBAL, LOCAL = 56, 28  # pixels


def make_batch(case: str, step: int, num_patches: int) -> dict:
    masks = torch.zeros(2 * IMAGES, num_patches, dtype=torch.bool)
    for row in range(0, 2 * IMAGES, 2):
        order = np.argsort(normal(f"{case}:mask:{step}:{row}", (num_patches,)).numpy(), kind="stable")
        masks[row, order[: 2 + (row + step) % (num_patches // 2)].tolist()] = True
    indices = masks.flatten().nonzero().flatten()
    return {
        "collated_global_crops": normal(f"{case}:global:{step}", (2 * IMAGES, 3, GLOBAL, GLOBAL)),
        "collated_local_crops": normal(f"{case}:local:{step}", (3 * IMAGES, 3, LOCAL, LOCAL)),
        "collated_masks": masks,
        "mask_indices_list": indices,
        "masks_weight": (1 / masks.sum(-1).clamp(min=1.0))[:, None].expand_as(masks)[masks],
        "upperbound": len(indices) + 3,
        "n_masked_patches": torch.tensor([len(indices)]),
    }


def schedule_at(step: int) -> ScheduleValues:
    lr = 1e-3 * (step + 1) / 5
    return ScheduleValues(
        lr=lr,
        last_layer_lr=lr if step else 0.0,
        weight_decay=0.04 + 0.01 * step,
        momentum=0.99 + 0.001 * step,
        teacher_temp=0.04 + 0.005 * step,
    )


@pytest.mark.parametrize("case", CASES)
def test_five_steps(case):
    cfg, figures = OmegaConf.load(GOLDENS / f"{case}.yaml"), load_figures(case)
    model = SSLMetaArch(cfg).train()
    for name in model.student:
        fill(model.student[name], f"{case}:student.{name}")
        fill(model.teacher[name], f"{case}:teacher.{name}")
    optimizer = torch.optim.AdamW(model.get_params_groups(), betas=(0.9, 0.999))
    losses = {name.removeprefix("loss/") for name in figures if name.startswith("loss/")}
    for step in range(5):
        values = schedule_at(step)
        apply_to_optimizer(values, optimizer)
        optimizer.zero_grad()
        output = model.forward_backward(
            make_batch(case, step, (GLOBAL // cfg.student.patch_size) ** 2), teacher_temp=values.teacher_temp
        )
        assert set(output) == losses
        for name in losses:
            assert float(output[name]) == pytest.approx(figures[f"loss/{name}"][step], rel=1e-4)
        for name, module in model.student.items():
            norm = torch.nn.utils.clip_grad_norm_(module.parameters(), 3.0)
            assert float(norm) == pytest.approx(figures[f"grad_norm/{name}"][step], rel=1e-3)
        optimizer.step()
        model.update_teacher(values.momentum)

    names = [f"{part}.{name}" for part, module in model.student.items() for name, _ in module.named_parameters()]
    assert names == figures["param_names"].tolist()
    for network in ("student", "teacher"):
        norms = torch.stack([parameter.detach().norm() for parameter in getattr(model, network).parameters()])
        assert_close(norms, figures[f"{network}_sum_norm"][:, 1].astype(np.float32), 1e-3)
    features = model.teacher["backbone"](normal(f"{case}:probe", (2, 3, GLOBAL, GLOBAL)))
    assert_close(features, figures["teacher_features"], 1e-3)
