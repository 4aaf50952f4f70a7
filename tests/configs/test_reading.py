"""Settings are what was typed, and nothing but other settings is evaluated."""

import pytest
from omegaconf import OmegaConf

from dinov2.configs import load_config_file, merge_layers, parse_overrides
from dinov2.errors import UserError


def read(tmp_path, kind: str, *lines: str):
    """Settings of `section.key=value` lines, from a file or from the command line."""
    if kind == "arguments":
        return merge_layers([("the command line", parse_overrides(lines))])
    file, sections = tmp_path / "recipe.yaml", {}
    for line in lines:
        section, key, value = line.replace("=", ".", 1).split(".", 2)
        sections.setdefault(section, [f"{section}:"]).append(f"  {key}: {value}")
    file.write_text("\n".join(line for section in sections.values() for line in section))
    return merge_layers([(str(file), load_config_file(file))])


both = pytest.mark.parametrize("kind", ["file", "arguments"])


@both
@pytest.mark.parametrize(
    "typed", ["010", "0777", "no", "yes", "off", "1:00", "12:30:00", "1e-4", "0x10", "1_000", ".5"]
)
def test_texts_stay_what_was_typed(typed, kind, tmp_path):
    cfg = read(tmp_path, kind, f"wandb.exp_name={typed}", f"wandb.group={typed}", f"student.pretrained_weights={typed}")
    assert (cfg.wandb.exp_name, cfg.wandb.group, cfg.student.pretrained_weights) == (typed, typed, typed)


@both
def test_texts_of_a_list_and_quotes(kind, tmp_path):
    cfg = read(tmp_path, kind, "wandb.tags=[no, 010, '08', a, 1:00]", "wandb.group=null", "wandb.dir='null'")
    assert list(cfg.wandb.tags) == ["no", "010", "08", "a", "1:00"]
    assert (cfg.wandb.group, cfg.wandb.dir) == (None, "null")


@both
@pytest.mark.parametrize("typed", ["train.seed=010", "train.num_workers=1:30", "optim.epochs=-012"])
def test_numbers_that_are_not_what_they_look_like(typed, kind, tmp_path):
    with pytest.raises(UserError, match=f"{typed} would be read as"):
        read(tmp_path, kind, typed)


@both
def test_numbers_in_other_forms(kind, tmp_path):
    cfg = read(tmp_path, kind, "train.seed=0x10", "optim.min_lr=1e-4", "optim.max_iter=1_000", "optim.base_lr=.5")
    assert (cfg.train.seed, cfg.optim.min_lr, cfg.optim.max_iter, cfg.optim.base_lr) == (16, 1e-4, 1000, 0.5)


@both
@pytest.mark.parametrize(
    "value",
    [
        "${oc.env:SECRET}",
        "prefix-${oc.env:SECRET,none}",
        "${oc.decode:${oc.env:SECRET}}",
        "${oc.create:${oc.env:SECRET}}",
        "${oc.${optim.x}:SECRET}",
        "${mine:1}",
        "\\${oc.env:SECRET}",  # without the backslash in the run's file, the next command would evaluate it
    ],
)
def test_nothing_is_evaluated(value, kind, tmp_path, monkeypatch):
    monkeypatch.setenv("SECRET", "hunter2")
    with pytest.raises(UserError) as error:
        read(tmp_path, kind, f"wandb.exp_name='{value}'")
    assert f"wandb.exp_name: {value} is not evaluated" in str(error.value)
    assert "hunter2" not in str(error.value)
    with pytest.raises(UserError, match=r"wandb\.tags"):
        read(tmp_path, kind, f"wandb.tags=[a, '{value}']")


@both
def test_other_settings_and_colons_outside_stay(kind, tmp_path):
    data = "train.dataset_path='ImageFolder:root=/data/${wandb.project}'"
    cfg = read(tmp_path, kind, "wandb.project=tiles", "wandb.exp_name='${wandb.project}'", data)
    assert (cfg.train.dataset_path, cfg.wandb.exp_name) == ("ImageFolder:root=/data/tiles", "tiles")


@both
def test_what_is_still_to_be_filled_in(kind, tmp_path):
    with pytest.raises(UserError, match=r"2 things(.|\n)*base_lr=\?\?\? is still(.|\n)*tags=\?\?\? is"):
        read(tmp_path, kind, "optim.base_lr=???", "wandb.tags=[a,'???']")


def test_a_hash_on_the_command_line_is_no_comment():
    assert parse_overrides(["train.dataset_path=Folder:root=/a #1"]).train.dataset_path == "Folder:root=/a #1"


def test_all_unreadable_arguments_at_once():
    with pytest.raises(UserError) as error:
        parse_overrides(["--epochs", "optim.epochs", "train.seed=010", "a=[1", "optim.lr=1"])
    assert str(error.value).startswith("4 things have to be mended:")
    assert OmegaConf.to_container(parse_overrides(["optim.lr=1"])) == {"optim": {"lr": 1}}
