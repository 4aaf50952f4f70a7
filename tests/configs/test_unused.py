"""Every setting that has no effect beside the others is said, with what is used instead."""

from fnmatch import fnmatchcase
from typing import Any

import pytest

from dinov2.configs import complete_config, leaf_keys, merge_layers, parse_overrides
from dinov2.configs.unused import ROWS, unused_settings

TUNED = ("tune.query_dataset_path=a", "tune.test_dataset_path=b")


def said(*arguments: str, processes: int = 2) -> list[str]:
    return list(unused_settings(merge_layers([("", parse_overrides(arguments))]), processes=processes))


# What makes settings useless, and those that then are; one line for each row of the table.
CASES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    ((), ("train.saveckp_freq=3", "train.cache_dataset=false")),
    ((), ("compute_precision.student.backbone.mixed_precision.buffer_dtype=fp16",)),
    ((), ("optim.lr=1e-5",)),
    (("optim.scaling_rule=none", "optim.lr=1"), ("optim.base_lr=0.1",)),
    (("optim.max_iter=3",), ("optim.epochs=7",)),
    (
        ("optim.max_iter=3", "optim.warmup_pct=0", "optim.freeze_last_layer_pct=0", "train.save_frequency=0")
        + ("teacher.warmup_teacher_temp_pct=0.1",),
        ("train.OFFICIAL_EPOCH_LENGTH=9",),
    ),
    (("ibot.loss_weight=0",), ("ibot.separate_head=true", "ibot.head_nlayers=2")),
    ((), ("ibot.head_n_prototypes=128", "compute_precision.teacher.ibot_head.sharding_strategy=NO_SHARD")),
    (("ibot.mask_sample_probability=0",), ("ibot.mask_ratio_min_max=[0.2,0.5]",)),
    (("dino.koleo_loss_weight=0",), ("dino.uniformity=kde", "dino.kde_concentration=2")),
    ((), ("dino.kde_concentration=2",)),
    (
        ("compute_precision.student.backbone.mixed_precision.param_dtype=bf16",)
        + ("compute_precision.student.dino_head.mixed_precision.param_dtype=fp32",)
        + ("compute_precision.student.ibot_head.mixed_precision.param_dtype=bf16", "ibot.separate_head=true"),
        ("compute_precision.grad_scaler=false",),
    ),
    (("train.keep_last=0",), ("train.keep_every=100",)),
    ((), ("train.max_nonfinite_steps=5",)),
    (("student.drop_path_rate=0",), ("student.drop_path_uniform=false",)),
    (("student.ffn_layer=identity",), ("student.ffn_bias=false",)),
    (("MODEL.WEIGHTS=a",), ("student.pretrained_weights=b",)),
    (("head.head_path=a",), ("student.pretrained_weights=b", "student.pretrained_allow=[registers]")),
    ((), ("student.pretrained_positions=center_cut", "student.pretrained_network=student")),
    ((), ("head.load=[backbone]", "head.start_iteration=4")),
    (("teacher.warmup_teacher_temp_pct=0",), ("teacher.warmup_teacher_temp=0.01",)),
    (("optim.frozen=[dino_head]",), ("optim.freeze_last_layer_epochs=3",)),
    (("optim.frozen=[backbone]",), ("optim.layerwise_decay=0.5", "optim.freeze_backbone_iterations=5")),
    (("crops.local_crops_number=0",), ("crops.local_crops_size=64", "augmentation.blur_local=0.1")),
    (("augmentation.color_jitter=0",), ("augmentation.hue=0.2", "augmentation.contrast=0.1")),
    (("data.on_bad_tile=raise",), ("data.max_bad_share=0.5",)),
    ((), ("data.draw_weights=0.5",)),
    ((), ("tune.probes=[linear]", "tune.tune_every_pct=1", "train.evaluation_timeout=5")),
    ((*TUNED, "tune.probes=[linear]"), ("tune.knn.nb_knn=[3]", "tune.knn.temperature=1")),
    (TUNED, ("tune.knn.n_tries=5",)),
    (TUNED, ("tune.linear.iterations=5",)),
    (TUNED, ("tune.early_stopping.patience_pct=0.5",)),
    ((*TUNED, "tune.keep_best=false"), ("tune.early_stopping.tracking=acc_20", "tune.early_stopping.min_max=min")),
    ((), ("wandb.project=p", "wandb.tags=[a]")),
)


@pytest.mark.parametrize(("reasons", "useless"), CASES, ids=lambda arguments: ",".join(arguments)[:60] or "default")
def test_what_has_no_effect_is_said(reasons, useless):
    assert said(*reasons) == []
    (line,) = said(*reasons, *useless)
    assert line.startswith("without effect: ")
    assert all(f"{argument.partition('=')[0]}=" in line for argument in useless)


def test_a_single_process_shards_nothing():
    argument = "compute_precision.student.backbone.sharding_strategy=FULL_SHARD"
    assert said(argument) == []
    (line,) = said(argument, processes=1)
    assert "sharding_strategy=FULL_SHARD; a single process holds everything" in line


def test_every_row_has_a_case():
    given = [argument.partition("=")[0] for _, useless in CASES for argument in useless]
    given.append("compute_precision.student.backbone.sharding_strategy")
    for row in ROWS:
        assert any(fnmatchcase(key, pattern) for key in given for pattern in row.keys), row.keys


def test_patterns_name_settings_that_exist():
    keys = list(leaf_keys(complete_config({})))
    assert not [pattern for row in ROWS for pattern in row.keys if not any(fnmatchcase(key, pattern) for key in keys)]


@pytest.mark.parametrize("processes", [1, 8])
def test_defaults_and_what_has_an_effect_say_nothing(processes):
    effective: tuple[Any, ...] = (
        "optim.base_lr=1",
        "ibot.separate_head=true",
        "ibot.head_nlayers=2",
        "wandb.enable=true",
    )
    assert said(processes=processes) == []
    assert said(*effective, "wandb.project=p", *TUNED, "tune.knn.nb_knn=[5]", processes=processes) == []
