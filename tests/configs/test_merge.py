"""The schema is closed, layers win in order, and mistakes are answered with what is right."""

import re

import pytest
from omegaconf import OmegaConf

import dinov2.configs as configs
from dinov2.configs import (
    CONFIG_ROOT,
    complete_config,
    load_config_file,
    merge_layers,
    parse_overrides,
    validate_config,
)
from dinov2.configs.schema import rows
from dinov2.errors import Mistakes, MistakesError, UserError
from dinov2.models.vision_transformer import FFN_LAYERS
from dinov2.models.weights.loading import ALLOWANCES, NETWORKS, POSITIONS

# eval/knn*.yaml have keys of an evaluation too: tests/eval/test_settings.py reads them.
PACKAGED = sorted(
    path.relative_to(CONFIG_ROOT).as_posix() for path in CONFIG_ROOT.rglob("*.yaml") if not path.name.startswith("knn")
)


def test_default_is_complete_and_valid():
    cfg = complete_config(configs.dinov2_default_config)
    assert not OmegaConf.missing_keys(cfg)
    validate_config(cfg)
    reference = {"optim.base_lr": 0.004, "optim.clip_grad": 3.0, "teacher.momentum_teacher": 0.992}
    reference |= {"dino.head_n_prototypes": 65536, "train.OFFICIAL_EPOCH_LENGTH": 1250, "student.drop_path_rate": 0.3}
    assert {key: OmegaConf.select(cfg, key) for key in reference} == reference


@pytest.mark.parametrize("name", PACKAGED)
def test_packaged_files_are_valid(name):
    validate_config(complete_config(load_config_file(CONFIG_ROOT / name)))


def test_later_layers_win():
    layers = [("file", {"optim": {"epochs": 7, "min_lr": 0.5}}), ("command line", {"optim": {"epochs": 9}})]
    cfg = merge_layers([(source, OmegaConf.create(layer)) for source, layer in layers])
    assert (cfg.optim.epochs, cfg.optim.min_lr, cfg.optim.weight_decay) == (9, 0.5, 0.04)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optim.warmup_pc=0.1", "did you mean optim.warmup_pct"),
        ("student.patchsize=16", "did you mean student.patch_size"),
        ("epochs=3", "did you mean optim.epochs"),
        ("tune.tune_every=1", "its place is tune.tune_every_pct"),
        ("optim.epochs=many", "optim.epochs"),
        ("train=3", "train is a section"),
    ],
)
def test_wrong_keys_and_types(override, message):
    with pytest.raises(UserError, match=message):
        merge_layers([("the command line", parse_overrides([override]))])


def test_two_spellings_of_one_setting():
    share = complete_config({"optim": {"warmup_pct": 0.2}})
    assert (share.optim.warmup_pct, share.optim.warmup_epochs) == (0.2, None)
    again = merge_layers([("a", share), ("b", OmegaConf.create({"optim": {"warmup_epochs": 3}}))])
    assert (again.optim.warmup_pct, again.optim.warmup_epochs) == (None, 3)
    with pytest.raises(UserError, match="two ways"):
        complete_config({"optim": {"warmup_pct": 0.2, "warmup_epochs": 3}})


def test_arguments_that_are_not_settings():
    with pytest.raises(UserError, match="expected key=value"):
        parse_overrides(["optim.epochs"])


def test_missing_and_broken_files(tmp_path):
    with pytest.raises(UserError, match="train/quickstart"):
        load_config_file(tmp_path / "no.yaml")
    (tmp_path / "bad.yaml").write_text("a: [1, 2")
    with pytest.raises(UserError, match="not a YAML file"):
        load_config_file(tmp_path / "bad.yaml")
    (tmp_path / "list.yaml").write_text("- a")
    with pytest.raises(UserError, match="a list"):
        load_config_file(tmp_path / "list.yaml")


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"crops": {"global_crops_size": 225}}, r"crops.global_crops_size=225 .* 224 and 240"),
        ({"crops": {"local_crops_size": 90}}, r"80 and 96"),
        ({"train": {"centering": "sinkhorn"}}, "did you mean sinkhorn_knopp"),
        ({"optim": {"scaling_rule": "linear"}}, "linear_wrt_256"),
        ({"dino": {"loss_weight": 0}}, "dino.loss_weight"),
        ({"train": {"batch_size_per_gpu": 0}}, "at least 1"),
        ({"ibot": {"mask_sample_probability": 0.001}}, "no crop is ever masked"),
        ({"ibot": {"mask_ratio_min_max": [0.5, 0.1]}}, "mask_ratio_min_max"),
        ({"optim": {"warmup_pct": 10}}, "from 0 to 1"),
        ({"optim": {"base_lr": -1}}, "at least 0"),
        ({"optim": {"scaling_rule": "none"}}, "optim.lr, which is 0"),
        ({"augmentation": {"hue": 0.7}}, "from 0 to 0.5"),
        ({"augmentation": {"std": [0, 0, 0]}}, "three numbers"),
        ({"teacher": {"teacher_temp": 0}}, "teacher_temp"),
        ({"ibot": {"mask_ratio_min_max": [0.001, 0.002]}}, "masks no patch of the 196"),
        ({"tune": {"knn": {"n_per_class_list": [0]}}}, "-1 for all"),
        ({"tune": {"query_dataset_path": "x"}}, "belong together"),
        ({"tune": {"early_stopping": {"enable": True}}}, "needs tune.query_dataset_path"),
        ({"compute_precision": {"student": {"backbone": {"sharding_strategy": "FULL"}}}}, "FULL_SHARD"),
        ({"compute_precision": {"teacher": {"dino_head": {"mixed_precision": {"param_dtype": "fp61"}}}}}, "fp16"),
    ],
)
def test_values_that_cannot_work(section, message):
    with pytest.raises(UserError, match=message):
        validate_config(complete_config(section))


@pytest.mark.parametrize("value", ["nan", "-.inf", "1e300", "12345678901234567890"])
def test_numbers_without_sense(value):
    """Of every key that is a number, or a list of them: one line each."""
    ranged = [row for row in rows() if row.range]
    texts = [f"{row.key}=[{value}]" if "list" in str(row.kind) else f"{row.key}={value}" for row in ranged]
    mistakes = Mistakes()
    validate_config(merge_layers([("", parse_overrides(texts))], mistakes), mistakes)
    with pytest.raises(MistakesError) as error:
        mistakes.refuse()
    for row in ranged:
        assert any(f"{row.key}=" in line and "\n" not in line for line in error.value.texts), row.key


def test_every_number_has_a_range():
    numbers = [row for row in rows() if re.search("int|float", str(row.kind))]
    assert not [row.key for row in numbers if row.range is None]
    assert not [row.key for row in rows() if row.range and row not in numbers]


def test_all_mistakes_at_once():
    """Unknown keys, types, ranges, names and combinations, of the file and the command line."""
    file = {"optim": {"epoch": 3, "epochs": "many", "warmup_pct": 0.1, "warmup_epochs": 1}}
    arguments = ["train.seed=-1", "train.centering=sinkhorn", "crops.local_crops_size=90", "optim.scaling_rule=none"]
    mistakes = Mistakes()
    cfg = merge_layers([("a.yaml", file), ("the command line", parse_overrides(arguments))], mistakes)
    validate_config(cfg, mistakes)
    with pytest.raises(UserError) as error:
        mistakes.refuse()
    first, *lines = str(error.value).split("\n  - ")
    assert first == "7 things have to be mended:"
    expected = ["unknown key optim.epoch", "two ways", "optim.epochs=many: expected a number", "train.seed=-1"]
    expected += ["did you mean sinkhorn_knopp", "crops.local_crops_size=90", "optim.lr, which is 0"]
    assert all(part in line for part, line in zip(expected, lines, strict=True)), lines


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("wandb.project=${USER}", "wandb.project: Interpolation key 'USER' not found"),
        ("optim.epochs=${optim.epochs}", "optim.epochs: Recursive interpolation"),
        ("optim.epochs=${student.arch}", "optim.epochs: .* could not be converted to Float"),
        ("wandb.tags=[a,'${b.c}']", "wandb.tags: Interpolation key 'b.c' not found"),
        ("tune.datasets={crc: {query: a, test: '${b}'}}", "tune.datasets: Interpolation key 'b' not found"),
        ("optim.epochs={a: 1}", "unknown key optim.epochs.a"),
        ("crops.global_crops_scale[0]=0.3", "unknown key crops.global_crops_scale.0"),
        ("tune.datasets=[a,b]", "tune.datasets=.*: expected settings by name"),
    ],
)
def test_values_that_come_to_nothing(argument, message):
    """Each is in the list, beside others."""
    with pytest.raises(UserError, match=f"2 things(.|\n)*{message}"):
        merge_layers([("the command line", parse_overrides(["train.seeed=1", argument]))])


def test_dots_in_names_of_a_file():
    with pytest.raises(UserError, match=r"tune.knn.nb_knn is one word, expected tune: {knn: {nb_knn: \.\.\.}}"):
        merge_layers([("a.yaml", {"tune": {"knn.nb_knn": [3]}})])
    cfg = merge_layers([("a.yaml", {"data": {"draw_weights": {"GTEx.v8": 2}}})])
    assert cfg.data.draw_weights == {"GTEx.v8": 2}


def test_names_of_the_schema_are_those_of_the_code():
    names = {row.key: set(row.names or ()) for row in rows()}
    assert names["student.ffn_layer"] == set(FFN_LAYERS)
    for key, known in (("network", NETWORKS), ("positions", POSITIONS), ("allow", ALLOWANCES)):
        assert names[f"student.pretrained_{key}"] == set(known)


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("train.num_workers=1e3", "a whole number"),
        ("optim.clip_grad=yes", "a number"),
        ("train.keep_every=some", "a whole number, or null"),
        ("train.deterministic=maybe", "true or false"),
        ("wandb.exp_name=null", "a text; '' for none"),
        ("wandb.tags=a", r"a list of texts: \[one,two\]"),
        ("tune.knn.nb_knn=5", r"a list of numbers: \[1,2\]"),
    ],
)
def test_wrong_types_are_answered_with_the_right_one(argument, expected):
    with pytest.raises(UserError, match=f"{argument.partition('=')[0]}=.*: expected {expected}"):
        merge_layers([("the command line", parse_overrides([argument]))])
