"""Which settings may change when a run goes on."""

from fnmatch import fnmatchcase
from typing import Any

import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config
from dinov2.configs.merge import leaf_keys
from dinov2.errors import UserError
from dinov2.train.settings import FREE, ROUNDING, check_settings, settings_of


def settings(global_batch_size: int = 64, **changes: Any) -> dict[str, Any]:
    """The defaults with some changes; "train__seed" stands for train.seed."""
    cfg = complete_config({})
    for name, value in changes.items():
        OmegaConf.update(cfg, name.replace("__", "."), value)
    return settings_of(cfg, global_batch_size=global_batch_size)


@pytest.mark.parametrize("pattern", [*FREE, *ROUNDING])
def test_patterns_name_settings_that_exist(pattern):
    assert any(fnmatchcase(key, pattern) for key in leaf_keys(complete_config({})))


@pytest.mark.parametrize(
    "change",
    [
        {"train__num_workers": 3},
        {"train__output_dir": "/elsewhere"},
        {"train__keep_last": 7},
        {"train__save_frequency": 9.0},
        {"train__batch_size_per_gpu": 8, "train__gradient_accumulation_factor": 8},
        {"wandb__project": "x", "tensorboard__enable": True},
        {"evaluation__eval_period_iterations": 1},
    ],
)
def test_where_and_how_a_run_works_may_change(change, caplog):
    check_settings(settings(), settings(**change))
    assert not caplog.text


def test_rounding_may_change_and_is_said(caplog):
    check_settings(settings(), settings(student__attention_backend="xformers"))
    assert "student.attention_backend" in caplog.text
    caplog.clear()
    own = settings()
    own["compute_precision.student.backbone.sharding_strategy"] = "NO_SHARD"
    check_settings(settings(), own)
    assert "sharding_strategy" in caplog.text


def test_what_is_computed_may_not_change_unless_allowed(caplog):
    own = settings(32, optim__base_lr=0.1, crops__local_crops_number=4, ibot__mask_ratio_min_max=[0.2, 0.5])
    with pytest.raises(UserError) as error:
        check_settings(settings(), own)
    lines = str(error.value).splitlines()
    assert [line.strip() for line in lines[1:5]] == [
        "crops.local_crops_number: 8 -> 4",
        "ibot.mask_ratio_min_max: [0.1, 0.5] -> [0.2, 0.5]",
        "optim.base_lr: 0.004 -> 0.1",
        "train.global_batch: 64 -> 32",
    ]
    assert "--allow-config-changes" in lines[-1]
    assert "gradient_accumulation_factor" in lines[-1]
    check_settings(settings(), own, allow_changes=True)
    assert "optim.base_lr: 0.004 -> 0.1" in caplog.text


def test_keys_of_another_version_are_not_compared():
    saved = {**settings(), "optim.gone": 1}
    del saved["optim.min_lr"]
    check_settings(saved, settings())


def test_no_secrets_are_kept():
    assert not [name for name in settings() if name.startswith(("wandb.", "tensorboard."))]
