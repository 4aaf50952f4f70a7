"""What the `tune` section must satisfy."""

import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config, merge_layers, parse_overrides, validate_config
from dinov2.configs.tune_scores import full_name, trackable_scores
from dinov2.errors import UserError

PAIR = {"query": "ImageFolder:root=a", "test": "ImageFolder:root=b"}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        ({"query_dataset_path": "x"}, "belong together"),
        ({"datasets": {"a.b": PAIR}}, r"tune.datasets.a.b: expected a name of letters"),
        ({"datasets": {"teacher": PAIR}}, "not teacher or student"),
        ({"datasets": {"crc": {"query": "x"}}}, r"expected two data set strings, {query: STRING, test: STRING}"),
        ({"datasets": {"crc": {**PAIR, "val": "x"}}}, "expected two data set strings"),
        ({"datasets": {"crc": {"query": "", "test": "x"}}}, "expected two data set strings"),
        ({"datasets": {"crc": "x"}}, "expected two data set strings"),
        ({"datasets": {"crc": PAIR}, "crop_size": 512}, "does not fit into tune.tile_size=256"),
        ({"datasets": {"crc": PAIR}, "crop_size": 220}, "tune.crop_size=220 is not a multiple"),
        ({"probes": ["knn", "liner"]}, "unknown tune.probes 'liner': did you mean linear"),
        ({"probes": []}, "one or more of knn, linear, log_regression"),
        ({"probes": ["knn", "knn"]}, "each once"),
        ({"knn": {"nb_knn": [0]}}, r"tune.knn.nb_knn=\[0\]: expected at least 1"),
        ({"knn": {"n_per_class_list": [0]}}, "-1 for all"),
        ({"knn": {"nb_knn": [5, 1, 5]}}, r"tune.knn.nb_knn=\[5, 1, 5\]: .* each once"),
        ({"knn": {"n_per_class_list": [2, 2]}}, "tune.knn.n_per_class_list=.*: expected each number once"),
        ({"linear": {"n_last_blocks": [1, 1]}}, "tune.linear.n_last_blocks=.* each once"),
        ({"linear": {"n_last_blocks": []}}, "expected numbers of blocks"),
        ({"linear": {"iterations": 0}}, "tune.linear.iterations=0: expected at least 1"),
        ({"resamples": -1}, "at least 0"),
        ({"allow_overlap": ["query"]}, "unknown tune.allow_overlap 'query': did you mean .*train_query"),
        ({"allow_overlap": ["crc.train_query"]}, "did you mean train_query"),
        ({"early_stopping": {"enable": True}}, "needs tune.query_dataset_path"),
        (
            {"datasets": {"crc": PAIR}, "early_stopping": {"enable": True}},
            "tracking=auc_20: there is no such score. Of the 16 .* the nearest are crc.auc_20",
        ),
    ],
)
def test_values_that_cannot_work(section, message):
    with pytest.raises(UserError, match=message):
        validate_config(complete_config({"tune": section}))


def test_data_sets_from_a_file_and_the_command_line():
    arguments = ["tune.datasets.crc.query=KNN:root=a:extra=b:split=query", "tune.datasets.crc.test=ImageFolder:root=c"]
    file = OmegaConf.create({"tune": {"datasets": {"pcam": PAIR}}})
    cfg = merge_layers([("a file", file), ("the command line", parse_overrides(arguments))])
    cfg.tune.early_stopping.enable, cfg.tune.early_stopping.tracking = True, "crc.auc_20"
    cfg.tune.allow_overlap = ["train_query", "crc.train_test"]
    validate_config(cfg)
    assert cfg.tune.datasets == {
        "pcam": PAIR,
        "crc": {"query": "KNN:root=a:extra=b:split=query", "test": "ImageFolder:root=c"},
    }


def test_scores_that_can_be_tracked():
    section = {"datasets": {"crc": PAIR}, "probes": ["linear", "knn"]}
    cfg = complete_config({"tune": {**section, "knn": {"nb_knn": [1, 20], "n_per_class_list": [-1, 5]}}})
    found = trackable_scores(cfg.tune)
    assert [name for name in found if "auc" in name] == [
        *("crc.linear_auc", "crc.auc_1", "crc.auc_20", "crc.auc_1_5shot", "crc.auc_5_5shot")
    ]
    assert full_name("crc.auc_20") == "crc.teacher.auc_20"
    assert full_name("auc_20", "student") == "student.auc_20"
