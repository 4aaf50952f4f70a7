"""Backbones out of whatever a training left."""

import pytest
import torch
from runs import ELSEWHERE, train

from dinov2.errors import UserError
from dinov2.hub.dino_backbone import get_dino_backbone
from dinov2.train.checkpoint import SavedCheckpoint

SHORT = (
    ELSEWHERE,
    "optim.max_iter=2",
    "optim.warmup_pct=0",
    "optim.freeze_last_layer_pct=0",
    "teacher.momentum_teacher=0",
)


@pytest.fixture
def run(image_folder, tmp_path):
    train(image_folder, tmp_path / "run", *SHORT, "train.save_frequency=1", "student.block_chunks=4")
    return tmp_path / "run"


@pytest.mark.thorough  # 7 s
def test_from_checkpoints_exports_and_the_reference_s_layout(run):
    saved = SavedCheckpoint(run / "checkpoints" / "step-0000002").read_all()
    model = {name.removeprefix("model."): tensor for name, tensor in saved.items() if name.startswith("model.")}
    torch.save({"model": model, "iteration": 1, "optimizer": {"state": {}}}, run / "model_0000001.rank_0.pth")
    images = torch.randn(2, 3, 28, 28, generator=torch.Generator().manual_seed(0))
    found = []
    for path in (
        run / "checkpoints" / "step-0000002",
        run / "model_0000001.rank_0.pth",
        run / "eval" / "training_1" / "teacher_checkpoint.pth",
        run / "eval" / "training_1" / "student_checkpoint.pth",
    ):
        teacher, student = get_dino_backbone(path, "cpu")
        assert not teacher.training
        assert torch.equal(student.norm.weight, model["student.backbone.norm.weight"])
        found.append((teacher(images), student(images)))
    assert not torch.equal(found[0][0], found[0][1])
    for features in found[1:]:
        assert torch.equal(features[0], found[0][0])
        assert torch.equal(features[1], found[0][1])


def test_one_of_them_and_what_is_missing(run, tmp_path):
    export = run / "eval" / "training_1" / "teacher_checkpoint.pth"
    assert torch.equal(get_dino_backbone(export, which="teacher").norm.weight, get_dino_backbone(export)[0].norm.weight)
    assert torch.equal(get_dino_backbone(export.parent)[0].norm.weight, get_dino_backbone(export)[0].norm.weight)
    with pytest.raises(UserError, match="expected teacher, student or both"):
        get_dino_backbone(export, which="teachers")
    (run / "eval" / "training_1" / "student_checkpoint.pth").unlink()
    with pytest.raises(UserError, match="has teacher, and no student"):
        get_dino_backbone(export)
    torch.save({"fc.weight": torch.ones(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="cannot be told"):
        get_dino_backbone(tmp_path / "other.pth")
    teacher = get_dino_backbone(export, which="teacher")
    torch.save(teacher.state_dict(), tmp_path / "bare.pth")
    assert torch.equal(get_dino_backbone(tmp_path / "bare.pth", which="teacher").norm.weight, teacher.norm.weight)
    with pytest.raises(UserError, match="has one network, and no student"):
        get_dino_backbone(tmp_path / "bare.pth")
