"""Schedules, parameter groups, the evaluation transform and the k-NN vote reproduce the reference's figures."""

import numpy as np
import pytest
import torch
from golden import assert_close, load_figures, load_json
from PIL import Image

from dinov2.data.transforms import make_classification_eval_transform
from dinov2.eval.features import Features
from dinov2.eval.knn_votes import knn_vote
from dinov2.layers import DINOHead
from dinov2.models.vision_transformer import vit_small
from dinov2.utils.param_groups import get_params_groups_with_decay
from dinov2.utils.utils import CosineScheduler


@pytest.mark.parametrize("name", ["lr", "wd", "momentum", "teacher_temp", "frozen"])
def test_schedule(name):
    scheduler = CosineScheduler(**load_json("schedules")[name])
    expected = load_figures("schedules")[name]
    np.testing.assert_allclose([scheduler[i] for i in range(len(expected))], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("case", load_json("param_groups"))
def test_param_groups(case):
    if "vits14" in case:
        chunks = int(case.rsplit("chunks", 1)[1])
        model = vit_small(patch_size=14, img_size=224, num_register_tokens=4, block_chunks=chunks, init_values=1e-5)
    else:
        model = DINOHead(384, 1024)
    settings = get_params_groups_with_decay(model, lr_decay_rate=0.9, patch_embed_lr_mult=0.2)
    expected = load_json("param_groups")[case]
    assert [s["name"] for s in settings] == [e["name"] for e in expected]
    for ours, theirs in zip(settings, expected, strict=True):
        assert ours["lr_multiplier"] == pytest.approx(theirs["lr_multiplier"], rel=1e-12)
        assert ours["wd_multiplier"] == theirs["wd_multiplier"]
        assert ours["is_last_layer"] == theirs["is_last_layer"]


def test_eval_transform():
    figures = load_figures("eval_transform")
    assert_close(make_classification_eval_transform()(Image.fromarray(figures["image"])), figures["output"], 1e-5)


def test_knn_vote():
    figures = {name: torch.from_numpy(array) for name, array in load_figures("knn").items()}
    normalize = torch.nn.functional.normalize
    query = Features(normalize(figures["train_features"], dim=1), figures["train_labels"])
    test = normalize(figures["test_features"], dim=1)
    votes = knn_vote(query, test, nb_knn=[1, 10, 20, 100], temperature=0.07, num_classes=5)
    for k, scores in votes.items():
        assert_close(scores, figures[f"probas_{k}"].numpy(), 1e-5)
