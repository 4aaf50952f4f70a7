"""Several processes compute what one computes, however weights and batches are spread."""

from functools import partial

import pytest
from omegaconf import OmegaConf
from ranks import run_ranks
from steps import Trained, assert_same_training, build, tiny_config, train_tiny

from dinov2.train.export import export_teacher

STRATEGIES = ["NO_SHARD", "SHARD_GRAD_OP", "FULL_SHARD"]
CENTERINGS = ["centering", "sinkhorn_knopp"]


@pytest.fixture(scope="module")
def alone() -> dict[str, Trained]:
    """Twenty steps of one process for each centering."""
    return {name: train_tiny(tiny_config(train={"centering": name}), 20, koleo_ranks=2) for name in CENTERINGS}


@pytest.mark.parametrize("centering", CENTERINGS)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_ranks_train_like_one(alone, strategy, centering):
    ranks = run_ranks(train_tiny, 2, tiny_config(strategy, train={"centering": centering}), 20)
    for rank in ranks:
        assert_same_training(rank, alone[centering])


@pytest.mark.thorough  # 3 s
def test_four_ranks_with_uneven_rows_and_everything_else():
    """A patch head of its own, blocks in chunks, another number of masks on every rank, other strategies by module."""
    sections = {
        "train": {"centering": "sinkhorn_knopp"},
        "ibot": {"separate_head": True},
        "student": {"block_chunks": 2, "num_register_tokens": 1, "ffn_layer": "swiglufused"},
    }
    masks = {"images": 8, "masked": lambda image: 1 + image}
    cfg = tiny_config("FULL_SHARD", **sections)
    precision = cfg.compute_precision
    precision.student.dino_head.sharding_strategy = precision.teacher.dino_head.sharding_strategy = "NO_SHARD"
    precision.student.ibot_head.sharding_strategy = "SHARD_GRAD_OP"
    expected = train_tiny(tiny_config(**sections), 4, koleo_ranks=4, **masks)
    assert_same_training(run_ranks(partial(train_tiny, **masks), 4, cfg, 4)[3], expected)


@pytest.mark.thorough  # 6 s
@pytest.mark.parametrize(
    ("strategy", "centering", "masked"),
    [
        ("NO_SHARD", "centering", lambda image: 3 * (image < 2)),
        ("SHARD_GRAD_OP", "sinkhorn_knopp", lambda image: 3 * (image < 2)),
        ("NO_SHARD", "sinkhorn_knopp", lambda image: 0),
        ("SHARD_GRAD_OP", "centering", lambda image: 0),
    ],
    ids=["one rank, replicated", "one rank, sharded", "both ranks, replicated", "both ranks, sharded"],
)
def test_ranks_without_masked_patches(strategy, centering, masked):
    sections = {"train": {"centering": centering}, "ibot": {"separate_head": True}}
    expected = train_tiny(tiny_config(**sections), 3, koleo_ranks=2, masked=masked)
    assert (expected.figures[0]["ibot_loss"] == 0.0) is (masked(0) == 0)
    for rank in run_ranks(partial(train_tiny, masked=masked), 2, tiny_config(strategy, **sections), 3):
        assert_same_training(rank, expected)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_micro_batches_of_two_ranks(strategy):
    expected = train_tiny(tiny_config(), 3, koleo_ranks=2, parts=2)
    ranks = run_ranks(partial(train_tiny, parts=2), 2, tiny_config(strategy), 3)
    assert ranks[0].figures[0]["current_batch_size"] == 4.0
    assert_same_training(ranks[0], expected)


@pytest.mark.parametrize("strategy", ["NO_SHARD", "FULL_SHARD"])
def test_activation_checkpointing_changes_nothing(strategy):
    """Both ways of dropping branches: of the lowest rate for all images, and of higher ones for a subset."""
    student = {"drop_path_rate": 0.4}
    kept = run_ranks(train_tiny, 2, tiny_config(strategy, student=student), 2)
    again = run_ranks(
        train_tiny, 2, tiny_config(strategy, student=student, train={"activation_checkpointing": True}), 2
    )
    assert_same_training(again[1], kept[1], losses=1e-6, others=1e-6)


@pytest.mark.parametrize("strategy", ["NO_SHARD", "FULL_SHARD"])
@pytest.mark.parametrize("frozen", ["backbone", "dino_head"])
def test_frozen_parts_on_two_ranks(strategy, frozen):
    optim = {"frozen": [frozen]}
    expected = train_tiny(tiny_config(optim=optim), 2, koleo_ranks=2)
    assert f"grad_norm_{frozen}" not in expected.figures[0]
    for rank in run_ranks(train_tiny, 2, tiny_config(strategy, optim=optim), 2):
        assert_same_training(rank, expected)


@pytest.mark.parametrize("strategy", ["NO_SHARD", "FULL_SHARD"])
def test_a_frozen_teacher_on_two_ranks(strategy, tmp_path):
    bigger = tiny_config(student={"arch": "vit_minute", "num_register_tokens": 2, "patch_size": 14})
    export_teacher(build(bigger), tmp_path)
    OmegaConf.save(bigger, tmp_path / "config.yaml")
    files = {"config_file": str(tmp_path / "config.yaml"), "weights": str(tmp_path / "teacher_checkpoint.pth")}
    expected = train_tiny(tiny_config(distillation=files), 2, koleo_ranks=2)
    for rank in run_ranks(train_tiny, 2, tiny_config(strategy, distillation=files), 2):
        assert_same_training(rank, expected)
