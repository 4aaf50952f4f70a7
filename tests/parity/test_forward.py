"""Backbones reproduce the reference's tokens and parameter names."""

import pytest
import torch
from golden import assert_close, fill, load_figures, load_json, normal

from dinov2.models.vision_transformer import vit_small

CASES = {
    "vits14_518": {"img_size": 518, "patch_size": 14},
    "vits14_reg4_518": {
        "img_size": 518,
        "patch_size": 14,
        "num_register_tokens": 4,
        "interpolate_antialias": True,
        "interpolate_offset": 0.0,
    },
    "vits16_224_masked": {"img_size": 224, "patch_size": 16},
    "vits14_swiglu_chunks4": {"img_size": 224, "patch_size": 14, "ffn_layer": "swiglufused", "block_chunks": 4},
}
FEATURES = ("x_norm_clstoken", "x_norm_regtokens", "x_norm_patchtokens", "x_prenorm")


@pytest.mark.parametrize("case", CASES)
def test_tokens_and_keys(case):
    model = vit_small(init_values=1e-5, **CASES[case]).eval()
    assert [(k, list(v.shape)) for k, v in model.state_dict().items()] == list(load_json(f"{case}.keys").items())
    fill(model, case)
    figures = load_figures(case)
    for size in sorted({name.split("/")[0] for name in figures}):
        height, width = map(int, size.split("x"))
        images = normal(f"{case}:image{size}", (2, 3, height, width))
        num_patches = (height // model.patch_size) * (width // model.patch_size)
        masks = normal(f"{case}:mask{size}", (2, num_patches)) > 0.5 if "masked" in case else None
        with torch.no_grad():
            output = model.forward_features(images, masks)
            layers = model.get_intermediate_layers(images, n=3, return_class_token=True)
        for name in FEATURES:
            assert_close(output[name], figures[f"{size}/{name}"], 1e-5)
        for index, (patches, cls_token) in enumerate(layers):
            if f"{size}/intermediate{index}_patch" in figures:
                assert_close(patches, figures[f"{size}/intermediate{index}_patch"], 1e-5)
                assert_close(cls_token, figures[f"{size}/intermediate{index}_cls"], 1e-5)
