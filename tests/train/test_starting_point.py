"""Going on from an export with heads: what is loaded, from which files, and where schedules begin."""

import shutil
from pathlib import Path

import pytest
import torch
from runs import SMALL, metrics_of, train
from steps import batches_of_rank, tiny_config

from dinov2.errors import UserError
from dinov2.train.export import export_networks, export_teacher
from dinov2.train.schedules import ScheduleValues
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.starting_point import StartingPoint
from dinov2.train.step import train_step

VALUES = ScheduleValues(lr=0.05, last_layer_lr=0.05, weight_decay=0.1, momentum=0.9, teacher_temp=0.07)
SINKHORN = {"train": {"batch_size_per_gpu": 4, "centering": "sinkhorn_knopp"}}  # which needs no centres
PARTS = ("backbone", "dino_head", "ibot_head")
ZENODO = "dinov2_vits_NCT_10k_training_9999"


def trained(cfg, state_of) -> SSLMetaArch:
    """A model whose student and teacher have parted."""
    torch.manual_seed(3)
    model = SSLMetaArch(cfg)
    state = state_of(cfg, model)
    for step in range(2):
        train_step(cfg, state, batches_of_rank(step), VALUES)
    return model


@pytest.fixture
def state_of():
    from steps import state_of

    return state_of


@pytest.fixture(params=[False, True], ids=["shared head", "separate head"])
def cfg(request):
    return tiny_config(ibot={"separate_head": request.param}, **SINKHORN)


def head_section(path: Path, load=PARTS, start_iteration=None):
    return tiny_config(head={"head_path": str(path), "load": list(load), "start_iteration": start_iteration}).head


def test_the_next_loss_is_the_same_to_the_last_bit(cfg, state_of, tmp_path):
    model = trained(cfg, state_of)
    export_networks(model, tmp_path / "training_1")
    torch.manual_seed(4)
    other = SSLMetaArch(cfg)
    StartingPoint(head_section(tmp_path / "training_1")).load(other)
    (batch,) = batches_of_rank(7)
    ours, theirs = (dict(one.forward_backward(batch, 0.07)) for one in (other, model))
    assert {name: loss.item() for name, loss in ours.items()} == {name: loss.item() for name, loss in theirs.items()}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_what_an_export_has(state_of, tmp_path):
    model = trained(tiny_config(ibot={"separate_head": True}, **SINKHORN), state_of)
    export_networks(model, tmp_path)
    found = {path.name: torch.load(path, weights_only=True) for path in tmp_path.iterdir()}
    assert sorted(found) == sorted(
        f"{network}{head}_checkpoint.pth"
        for network in ("teacher", "student")
        for head in ("", "_dino_head", "_ibot_head")
    )
    assert list(found["student_dino_head_checkpoint.pth"]) == ["student_dino_head"]
    head = found["student_dino_head_checkpoint.pth"]["student_dino_head"]
    assert list(head)[-2:] == ["last_layer.weight_g", "last_layer.weight_v"]
    whole = found["student_checkpoint.pth"]["student"]
    assert torch.equal(head["mlp.0.weight"], whole["dino_head.mlp.0.weight"])
    assert torch.equal(head["mlp.0.weight"], model.student["dino_head"].mlp[0].weight)
    assert any(not torch.equal(whole[name], found["teacher_checkpoint.pth"]["teacher"][name]) for name in whole)


def test_names_of_the_release_of_roth(cfg, state_of, tmp_path):
    model = trained(cfg, state_of)
    export_networks(model, tmp_path / "x")
    release = tmp_path / "release"
    release.mkdir()
    for path in (tmp_path / "x").iterdir():
        shutil.copy(path, release / f"{ZENODO}_{path.name}")
    point = StartingPoint(head_section(release))
    assert point.iteration == 10_000
    other = SSLMetaArch(cfg)
    point.load(other)
    assert torch.equal(other.student["dino_head"].last_layer.weight_g, model.student["dino_head"].last_layer.weight_g)
    for path in (tmp_path / "x").iterdir():
        shutil.copy(path, release / f"{ZENODO.replace('9999', '1999')}_{path.name}")
    with pytest.raises(UserError, match="several exports"):
        StartingPoint(head_section(release))
    assert StartingPoint(head_section(release / ZENODO)).iteration == 10_000
    assert StartingPoint(head_section(release / ZENODO.replace("9999", "1999"))).iteration == 2_000


def test_an_export_of_the_teacher_alone_starts_both_networks(cfg, state_of, tmp_path):
    model = trained(cfg, state_of)
    model.student.load_state_dict(model.teacher.state_dict())
    export_teacher(model, tmp_path / "training_1")
    other = SSLMetaArch(cfg)
    StartingPoint(head_section(tmp_path / "training_1")).load(other)
    (batch,) = batches_of_rank(7)
    ours, theirs = (dict(one.forward_backward(batch, 0.07)) for one in (other, model))
    assert {name: loss.item() for name, loss in ours.items()} == {name: loss.item() for name, loss in theirs.items()}


def test_parts_that_are_not_loaded_are_equal_in_both_networks(state_of, tmp_path):
    cfg = tiny_config(**SINKHORN)
    model = trained(cfg, state_of)
    export_networks(model, tmp_path / "training_1")
    other = SSLMetaArch(cfg)
    StartingPoint(head_section(tmp_path / "training_1", load=["dino_head"])).load(other)
    assert torch.equal(other.teacher["backbone"].pos_embed, other.student["backbone"].pos_embed)
    assert not torch.equal(other.student["backbone"].pos_embed, model.student["backbone"].pos_embed)
    assert torch.equal(other.teacher["dino_head"].mlp[0].weight, model.teacher["dino_head"].mlp[0].weight)


def test_mistakes(state_of, tmp_path):
    cfg = tiny_config(**SINKHORN)
    (tmp_path / "empty").mkdir()
    for path in ("empty", "nowhere/training_5"):
        with pytest.raises(UserError, match="expected a folder with teacher_checkpoint.pth"):
            StartingPoint(head_section(tmp_path / path))
    export_networks(trained(cfg, state_of), tmp_path / "full")
    separate = SSLMetaArch(tiny_config(ibot={"separate_head": True}, **SINKHORN))
    with pytest.raises(UserError, match="has no ibot_head; head.load says"):
        StartingPoint(head_section(tmp_path / "full")).load(separate)
    wider = SSLMetaArch(tiny_config(dino={"head_n_prototypes": 60}, **SINKHORN))
    with pytest.raises(UserError, match="dino_head in .* does not fit"):
        StartingPoint(head_section(tmp_path / "full")).load(wider)
    (tmp_path / "full" / "teacher_checkpoint.pth").unlink()
    with pytest.raises(UserError, match="has no teacher_checkpoint.pth; it has student_checkpoint.pth"):
        StartingPoint(head_section(tmp_path / "full")).load(SSLMetaArch(cfg))


def test_a_training_goes_on_from_another_ones_export(image_folder, tmp_path):
    train(image_folder, tmp_path / "first")
    export = tmp_path / "first" / "eval" / "training_5"
    longer = [f"head.head_path={export}", "optim.max_iter=9"]
    train(image_folder, tmp_path / "second", *longer)
    assert [line["iteration"] for line in metrics_of(tmp_path / "second")] == [8]
    assert [path.name for path in sorted((tmp_path / "second" / "eval").iterdir())] == ["training_8"]
    with pytest.raises(UserError, match="is of 6 iterations and the training ends after 6"):
        train(image_folder, tmp_path / "third", f"head.head_path={export}")
    train(image_folder, tmp_path / "fourth", f"head.head_path={export}", "head.start_iteration=0")
    assert [line["iteration"] for line in metrics_of(tmp_path / "fourth")] == [0, 5]
    assert "optim.max_iter=6" in SMALL
