"""A frozen bigger teacher: where targets come from, what changes, what is exported, and what does not go together."""

from functools import partial
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from steps import HEAD, batches_of_rank, state_of, tiny_config

from dinov2.errors import UserError
from dinov2.models.vision_transformer import ARCHITECTURES, DinoVisionTransformer
from dinov2.train.distillation import read_teacher_config
from dinov2.train.export import export_teacher
from dinov2.train.schedules import ScheduleValues
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.step import train_step

VALUES = ScheduleValues(lr=0.05, last_layer_lr=0.05, weight_decay=0.1, momentum=0.9, teacher_temp=0.07)
ARCHITECTURES.setdefault("vit_bigger", partial(DinoVisionTransformer, embed_dim=36, depth=4, num_heads=3))


@pytest.fixture(params=[False, True], ids=["shared head", "separate head"])
def sections(request) -> dict:
    return {"ibot": {**HEAD, "separate_head": request.param}}


def big_teacher(sections: dict, folder: Path) -> tuple[SSLMetaArch, dict]:
    """A model, and the section that makes others learn from it."""
    torch.manual_seed(1)
    student = {"arch": "vit_bigger", "patch_size": 14, "layerscale": 0.5}
    cfg = tiny_config(student=student, **sections)
    model = SSLMetaArch(cfg)
    export_teacher(model, folder)
    OmegaConf.save(cfg, folder / "config.yaml")
    return model, {"config_file": str(folder / "config.yaml"), "weights": str(folder / "teacher_checkpoint.pth")}


def test_targets_are_the_frozen_teachers(sections, tmp_path):
    big, distillation = big_teacher(sections, tmp_path)
    student = SSLMetaArch(tiny_config(distillation=distillation, **sections))
    (batch,) = batches_of_rank(0)
    ours, theirs = (model.teacher_targets(batch, 0.07) for model in (student, big))
    assert torch.equal(ours.cls, theirs.cls)
    assert torch.equal(ours.patches, theirs.patches)
    assert student.teacher["backbone"].embed_dim == 30


def test_the_student_learns_and_the_frozen_teacher_stays(sections, tmp_path):
    big, distillation = big_teacher(sections, tmp_path)
    cfg = tiny_config(distillation=distillation, **sections)
    model = SSLMetaArch(cfg)
    model.prepare_for_distributed_training()
    assert not any("vit_bigger" in name or tensor.shape[-1] == 36 for name, tensor in model.state_dict().items())
    before = {name: tensor.clone() for name, tensor in model.teacher.state_dict().items()}
    state = state_of(cfg, model)
    losses = [train_step(cfg, state, batches_of_rank(0), VALUES).figures["total_loss"] for _ in range(8)]
    assert losses[-1] < losses[0]
    frozen = torch.nn.ModuleDict(model._target_calls)
    assert all(torch.equal(tensor, big.teacher.state_dict()[name]) for name, tensor in frozen.state_dict().items())
    # What is exported is the moving average of the student.
    assert not torch.equal(model.teacher["backbone"].norm.weight, before["backbone.norm.weight"])


def test_what_does_not_go_together(tmp_path):
    _, distillation = big_teacher({}, tmp_path)
    with pytest.raises(UserError, match="dino.head_n_prototypes is 60 here and 50 in"):
        read_teacher_config(tiny_config(distillation=distillation, dino={"head_n_prototypes": 60}))
    with pytest.raises(UserError, match="student.patch_size is 7 here and 14 in"):
        read_teacher_config(tiny_config(distillation=distillation, student={"arch": "vit_minute", "patch_size": 7}))
    with pytest.raises(UserError, match="distillation needs both"):
        SSLMetaArch(tiny_config(distillation={"weights": distillation["weights"]}))
    with pytest.raises(UserError, match="distillation.weights=.*: there is no such file"):
        read_teacher_config(tiny_config(distillation={**distillation, "weights": str(tmp_path / "none.pth")}))
    torch.save({"teacher": {"norm.weight": torch.ones(36)}}, tmp_path / "part.pth")
    with pytest.raises(UserError, match="does not fit"):
        SSLMetaArch(tiny_config(distillation={**distillation, "weights": str(tmp_path / "part.pth")}))
