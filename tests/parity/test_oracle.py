"""A second oracle, of other sizes: the reference's forward_backward on a tiny model, with gradients.

The reference was run in float32 on a CPU; weights are sines of their flat index, images are chirps.
"""

import numpy as np
import pytest
import torch

from dinov2.configs import complete_config
from dinov2.models import vision_transformer
from dinov2.train.ssl_meta_arch import SSLMetaArch

CASES = {
    "A": {"centering": "centering", "separate": False, "locals": 2, "registers": 0, "ffn": "mlp"},
    "B": {"centering": "sinkhorn_knopp", "separate": True, "locals": 2, "registers": 4, "ffn": "swiglufused"},
    "C": {"centering": "sinkhorn_knopp", "separate": False, "locals": 4, "registers": 0, "ffn": "mlp"},
    "D": {"centering": "centering", "separate": True, "locals": 2, "registers": 4, "ffn": "mlp"},
}
# Per step: local, global, koleo and iBOT loss as displayed, the objective, and gradient norms.
FIGURES = {
    "A": [
        (1.642917, 0.821438, 0.269729, 0.615501, 4.234816, 10.254197, 7.779120),
        (1.663355, 0.831656, 0.268425, 0.623230, 4.278319, 15.416724, 6.960562),
    ],
    "B": [
        (6.769949, 3.387448, 0.298460, 2.460283, 15.674883, 12.032866, 46.453787, 19.271162),
        (6.770196, 3.387499, 0.364493, 2.460714, 15.808109, 64.053387, 46.462134, 19.275279),
    ],
    "C": [
        (8.064116, 2.016423, 0.269729, 2.528524, 15.677046, 10.349120, 57.685701),
        (8.063993, 2.016424, 0.268425, 2.528671, 15.674608, 15.408078, 57.706905),
    ],
    "D": [
        (1.640639, 0.820251, 0.319780, 0.482772, 4.065994, 12.120217, 5.133008, 2.826770),
        (1.661157, 0.830518, 0.377144, 0.491173, 4.228308, 67.026972, 4.582523, 2.475698),
    ],
}


def sine(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    n = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.from_numpy(np.sin(n * 0.37 + phase).astype(np.float32)).view(shape)


def chirp(shape: tuple[int, ...], phase: float) -> torch.Tensor:
    n = np.arange(int(np.prod(shape)), dtype=np.float64)
    return torch.from_numpy(np.sin(0.7 * n + 0.001 * n**2 + phase).astype(np.float32)).view(shape)


def fill_with_sines(module: torch.nn.Module, phase: float) -> None:
    with torch.no_grad():
        for number, (name, parameter) in enumerate(module.named_parameters()):
            parameter.copy_(0.05 * sine(tuple(parameter.shape), phase + number))
            if name.endswith("weight_g") or ("norm" in name and name.endswith("weight")):
                parameter += 1
            if name.endswith("gamma"):
                parameter += 0.5


def build(case: dict, monkeypatch) -> SSLMetaArch:
    def tiny(patch_size=14, num_register_tokens=0, **kwargs):
        return vision_transformer._vit(32, 3, 2, patch_size, num_register_tokens, kwargs)

    monkeypatch.setitem(vision_transformer.ARCHITECTURES, "vit_oracle", tiny)
    head = {"head_hidden_dim": 48, "head_bottleneck_dim": 16}
    registers = case["registers"]
    cfg = complete_config(
        {
            "dino": {**head, "head_n_prototypes": 64},
            "ibot": {**head, "head_n_prototypes": 40, "separate_head": case["separate"]},
            "train": {"centering": case["centering"]},
            "student": {
                "arch": "vit_oracle",
                "patch_size": 14,
                "drop_path_rate": 0.0,
                "num_register_tokens": registers,
                "ffn_layer": case["ffn"],
                "interpolate_offset": 0.0 if registers else 0.1,
                "interpolate_antialias": registers > 0,
            },
            "crops": {"global_crops_size": 56, "local_crops_size": 28, "local_crops_number": case["locals"]},
        }
    )
    model = SSLMetaArch(cfg).train()
    for name in model.student:
        fill_with_sines(model.student[name], 0.1)
        fill_with_sines(model.teacher[name], 0.4)
    return model


@pytest.mark.parametrize("name", CASES)
def test_two_steps(name, monkeypatch):
    case = CASES[name]
    model = build(case, monkeypatch)
    masks = torch.zeros(6, 16, dtype=torch.bool)
    masks[0, 2:7] = masks[3, [0, 5, 15]] = masks[4, 8:] = True
    indices = masks.flatten().nonzero().flatten()
    for step, expected in enumerate(FIGURES[name]):
        model.zero_grad()
        output = model.forward_backward(
            {
                "collated_global_crops": chirp((6, 3, 56, 56), step),
                "collated_local_crops": chirp((3 * case["locals"], 3, 28, 28), 0.5 + step),
                "collated_masks": masks,
                "mask_indices_list": indices,
                "masks_weight": (1 / masks.sum(-1).clamp(min=1.0))[:, None].expand_as(masks)[masks],
                "upperbound": 20,
                "n_masked_patches": torch.tensor([len(indices)]),
            },
            teacher_temp=0.05,
        )
        shown = ("dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss", "ibot_loss")
        losses = [*(float(output[key]) for key in shown), float(output.objective)]
        norms = [
            float(torch.stack([p.grad.norm() for p in module.parameters()]).norm()) for module in model.student.values()
        ]
        assert losses == pytest.approx(expected[:5], rel=2e-5)
        assert norms == pytest.approx(expected[5:], rel=1e-3)
