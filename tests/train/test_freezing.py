"""Parts of the student that do not learn, for a while or at all, and the spread of tokens by density."""

from itertools import pairwise

import pytest
import torch
from runs import train
from steps import batches_of_rank, state_of, tiny_config

from dinov2.errors import UserError
from dinov2.train.checkpoint import SavedCheckpoint
from dinov2.train.schedules import ScheduleValues
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.step import train_step

VALUES = ScheduleValues(lr=0.05, last_layer_lr=0.05, weight_decay=0.1, momentum=0.9, teacher_temp=0.07)


def moved_parts(cfg, values: ScheduleValues) -> set[str]:
    """Parts of student and teacher that a step changes."""
    torch.manual_seed(0)
    model = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    report = train_step(cfg, state_of(cfg, model), batches_of_rank(0), values)
    assert ("grad_norm_backbone" in report.figures) == ("backbone" not in cfg.optim.frozen)
    changed = [name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])]
    return {".".join(name.split(".")[:2]) for name in changed if "loss" not in name}


@pytest.mark.parametrize("frozen", [["backbone"], ["dino_head"], []])
def test_frozen_parts_stay(frozen):
    parts = {"backbone", "dino_head"} - set(frozen)
    expected = {f"{network}.{part}" for network in ("student", "teacher") for part in parts}
    assert moved_parts(tiny_config(optim={"frozen": frozen}), VALUES) == expected


def test_a_backbone_that_is_frozen_at_this_step():
    expected = {"student.dino_head", "teacher.dino_head"}
    assert moved_parts(tiny_config(), VALUES._replace(frozen=("backbone",))) == expected


def test_new_heads_learn_before_the_backbone_does(image_folder, tmp_path):
    options = ["optim.freeze_backbone_iterations=4", "optim.freeze_last_layer_pct=0", "optim.warmup_pct=0"]
    train(image_folder, tmp_path / "run", *options)
    states = [SavedCheckpoint(tmp_path / "run" / "checkpoints" / f"step-000000{n}").read_all() for n in (2, 4, 6)]
    backbone, head = "model.student.backbone.blocks.0.attn.qkv.weight", "model.student.dino_head.mlp.0.weight"
    assert [torch.equal(a[backbone], b[backbone]) for a, b in pairwise(states)] == [True, False]
    assert [torch.equal(a[head], b[head]) for a, b in pairwise(states)] == [False, False]


def test_what_cannot_be_frozen(image_folder, tmp_path):
    with pytest.raises(UserError, match="leaves nothing to learn"):
        train(image_folder, tmp_path / "a", "optim.frozen=[backbone,dino_head]")
    with pytest.raises(UserError, match="only a model with ibot.separate_head=true has"):
        train(image_folder, tmp_path / "a", "optim.frozen=[ibot_head]")
    with pytest.raises(UserError, match=r"optim.frozen=backbone: expected a list of texts: \[one,two\]"):
        train(image_folder, tmp_path / "a", "optim.frozen=backbone")
    with pytest.raises(UserError, match="unknown optim.frozen 'backbon'"):
        train(image_folder, tmp_path / "b", "optim.frozen=[backbon]")
    with pytest.raises(UserError, match="outlasts the training of 6 iterations; optim.frozen"):
        train(image_folder, tmp_path / "c", "optim.freeze_backbone_iterations=6")


def test_density_in_place_of_neighbours():
    (batch,) = batches_of_rank(0)
    torch.manual_seed(0)
    koleo = SSLMetaArch(tiny_config())
    torch.manual_seed(0)
    kde = SSLMetaArch(tiny_config(dino={"uniformity": "kde"}))
    a, b = (model.forward_backward(batch, 0.07) for model in (koleo, kde))
    assert set(a) - set(b) == {"koleo_loss"}
    assert set(b) - set(a) == {"kde_loss"}
    tokens = kde.student_predictions(batch).global_tokens.chunk(2)
    expected = 0.1 * sum(float(kde.koleo_loss(part).detach()) for part in tokens) / 2
    assert float(b["kde_loss"]) == pytest.approx(expected, rel=1e-5)
    rest = float(a.objective) - 2 * float(a["koleo_loss"])
    assert float(b.objective) == pytest.approx(rest + 2 * float(b["kde_loss"]), rel=1e-5)
