"""The step beyond the golden figures: state-dict keys, low precision, edges, EMA."""

import pytest
import torch
from steps import batches_of_rank, build, tiny_config

from dinov2.data import MaskingGenerator, collate_data_and_cast
from dinov2.errors import UserError
from dinov2.train.ssl_meta_arch import SSLMetaArch

HEAD = {"head_n_prototypes": 64, "head_hidden_dim": 32, "head_bottleneck_dim": 16}


def config(**sections) -> dict:
    base = {
        "dino": dict(HEAD),
        "ibot": dict(HEAD),
        "student": {"arch": "vit_tiny", "patch_size": 14},
        "crops": {"global_crops_size": 56, "local_crops_size": 28, "local_crops_number": 2},
    }
    for name, values in sections.items():
        base[name] = {**base.get(name, {}), **values}
    return base


def batch(images: int = 2, local_crops: int = 2, dtype: torch.dtype = torch.float32) -> dict:
    torch.manual_seed(0)
    crops = {"global_crops": [56] * 2, "local_crops": [28] * local_crops}
    samples = [
        ({name: [torch.randn(3, size, size) for size in sizes] for name, sizes in crops.items()}, None)
        for _ in range(images)
    ]
    return collate_data_and_cast(
        samples,
        mask_ratio_tuple=(0.2, 0.5),
        mask_probability=0.5,
        dtype=dtype,
        n_tokens=16,
        mask_generator=MaskingGenerator(4, max_num_patches=8),
    )


@pytest.mark.parametrize(("separate", "count"), [(False, 368), (True, 384)])
def test_state_dict_has_the_keys_of_the_reference(separate, count):
    names = list(SSLMetaArch(config(ibot={"separate_head": separate})).state_dict())
    assert len(names) == count
    assert names[:3] == ["dino_loss.center", "ibot_patch_loss.center", "student.backbone.cls_token"]
    assert ("teacher.ibot_head.last_layer.weight_g" in names) is separate


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_batches_of_any_dtype_train_on_a_cpu(dtype):
    model = SSLMetaArch(config()).train()
    output = model.forward_backward(batch(dtype=dtype), teacher_temp=0.05)
    assert set(output) == {"dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss", "ibot_loss"}
    assert all(value.dtype == torch.float32 and bool(value.isfinite()) for value in output.values())
    assert all(parameter.grad is not None for parameter in model.student.parameters())
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_crops_of_both_sizes_keep_a_float32_residual_stream_in_low_precision():
    model = SSLMetaArch(config())
    backbone = model.student["backbone"]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        tokens = [backbone.prepare_tokens_with_masks(torch.randn(2, 3, size, size)) for size in (56, 28)]
    assert [group.dtype for group in tokens] == [torch.float32] * 2


def test_without_local_crops_the_divisor_is_three():
    model = SSLMetaArch(config(crops={"local_crops_number": 0}, student={"drop_path_rate": 0.0})).train()
    images = batch(local_crops=0)
    output = model.forward_backward(images, teacher_temp=0.05)
    assert "dino_local_crops_loss" not in output
    targets = model.teacher_targets(images, 0.05)
    fresh = SSLMetaArch(config(crops={"local_crops_number": 0})).dino_loss
    predictions = model.student_predictions(images)
    model.dino_loss.center.zero_()
    expected = 2 / 3 * fresh([predictions.global_cls], [model.teacher_targets(images, 0.05).cls.flatten(0, 1)])
    assert targets.cls.shape == (2, 2, 64)
    assert float(output["dino_global_crops_loss"]) == pytest.approx(float(expected), rel=1e-4)


def test_losses_that_are_switched_off():
    model = SSLMetaArch(config(dino={"koleo_loss_weight": 0}, ibot={"loss_weight": 0})).train()
    output = model.forward_backward(batch(), teacher_temp=0.05)
    assert set(output) == {"dino_local_crops_loss", "dino_global_crops_loss"}
    assert not any(name.startswith("ibot") for name in model.state_dict())
    assert float(output.objective) == pytest.approx(sum(float(value) for value in output.values()))


def test_teacher_is_the_moving_average():
    model = SSLMetaArch(config())
    before = [parameter.clone() for parameter in model.teacher.parameters()]
    model.update_teacher(0.9)
    for old, teacher, student in zip(before, model.teacher.parameters(), model.student.parameters(), strict=True):
        assert torch.allclose(teacher, 0.9 * old + 0.1 * student, atol=1e-6)
    model.prepare_for_distributed_training()
    for teacher, student in zip(model.teacher.parameters(), model.student.parameters(), strict=True):
        assert torch.equal(teacher, student)


def test_teacher_stays_in_evaluation_mode():
    model = SSLMetaArch(config()).train()
    assert model.student.training
    assert not model.teacher.training
    with pytest.raises(NotImplementedError):
        model(torch.zeros(1))


def test_values_that_cannot_work_are_found_at_construction():
    with pytest.raises(UserError, match="centering"):
        SSLMetaArch(config(train={"centering": "foo"}))


def test_block_activations_can_be_computed_twice_instead_of_kept():
    gradients, calls = [], []
    for activation_checkpointing in (False, True):
        cfg = tiny_config(
            student={"drop_path_rate": 0.3, "block_chunks": 2},
            train={"activation_checkpointing": activation_checkpointing},
        )
        model = build(cfg)
        model.student["backbone"].block_list()[1].mlp.register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(1)  # of the branches that are dropped
        model.forward_backward(batches_of_rank(0)[0], teacher_temp=0.05)
        gradients.append([parameter.grad for parameter in model.student.parameters()])
    assert len(calls) == 1 + 2
    assert all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


@pytest.mark.parametrize("separate_head", [False, True])
@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
def test_a_batch_without_masked_patches(centering, separate_head):
    model = build(tiny_config(train={"centering": centering}, ibot={"separate_head": separate_head}))
    model.forward_backward(batches_of_rank(0)[0], teacher_temp=0.05)
    model.zero_grad()
    center = model.ibot_patch_loss.center.clone()
    output = model.forward_backward(batches_of_rank(1, masked=lambda image: 0)[0], teacher_temp=0.05)
    assert float(output["ibot_loss"]) == 0.0
    assert bool(torch.stack(list(output.values())).isfinite().all())
    assert all(bool(parameter.grad.isfinite().all()) for parameter in model.student.parameters())
    assert torch.equal(model.ibot_patch_loss.center, center)
