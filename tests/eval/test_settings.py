"""Settings of an evaluation: the fork's files, `key=value` arguments and flags."""

import re

import pytest

from dinov2.configs import CONFIG_ROOT
from dinov2.errors import UserError
from dinov2.eval.arguments import make_parser
from dinov2.eval.knn import get_args_parser
from dinov2.eval.settings import load_settings


def settings_of(*arguments: str):
    args = get_args_parser().parse_intermixed_args(["--val-dataset", "v", *arguments])
    args.opts = [*args.opts, *args.more_opts]
    return load_settings(args)


@pytest.mark.parametrize("path", sorted((CONFIG_ROOT / "eval").glob("*.yaml")), ids=lambda path: path.stem)
def test_packaged_files(path):
    cfg, keys = settings_of("--config-file", str(path))
    assert cfg.student.patch_size == 14
    assert (keys.knn.nb_knn, keys.knn.n_per_class_list, keys.data.batch_size) == ([10, 20, 100, 200], [-1], 256)


def test_flags_win_over_arguments_over_the_file(tmp_path):
    (tmp_path / "a.yaml").write_text(
        "data: {batch_size: 1, query_dataset: q, max_pixels: 99}\nknn: {nb_knn: [1], temperature: 1.0, n_tries: 7}\n"
        "speed: {num_workers: 3, gather_on_cpu: true}\nstudent: {pretrained_weights: ''}\n"
    )
    file = ("--config-file", str(tmp_path / "a.yaml"))
    cfg, keys = settings_of(*file, "knn.nb_knn=[2]", "--temperature", "3", "--opts", "data.batch_size=2")
    assert (keys.data.batch_size, keys.data.query_dataset, keys.knn.nb_knn) == (2, "q", [2])
    assert (keys.knn.temperature, keys.knn.n_tries, keys.speed.num_workers) == (3.0, 7, 3)
    assert keys.speed.gather_on_cpu
    assert cfg.data.max_pixels == 99
    _, keys = settings_of(*file, "--nb_knn", "4", "5", "--batch-size", "8", "--train-dataset", "t")
    assert (keys.knn.nb_knn, keys.data.batch_size, keys.data.query_dataset) == ([4, 5], 8, "t")


def test_a_scalar_of_the_forks_template():
    assert settings_of("knn.n_per_class_list=-1")[1].knn.n_per_class_list == [-1]


@pytest.mark.parametrize(("size", "resized"), [(224, 224), (256, 256), (512, 256)])
def test_declared_image_size(size, resized):
    assert settings_of(f"data.image_size={size}")[1].data.resize_size == resized


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("knn.nb_kn=[3]", "unknown key of knn 'nb_kn': did you mean nb_knn"),
        ("speed.workers=3", "unknown key of speed 'workers'"),
        ("data.query=x", "unknown key data.query"),
        ("knn.temperature=warm", "temperature"),
        ("knn.nb_knn=[0]", "expected numbers of neighbours"),
        ("knn.n_per_class_list=[0]", "expected numbers of query tiles per class"),
        ("knn.temperature=0", "temperature=0.0: expected at least 0.0001"),
        ("data.image_size=96", "data.image_size=96: expected at least 224"),
        ("data=[1]", "data is a section"),
        ("knn.nb_knn.0=3", "knn.nb_knn={'0': 3}: expected a value, or a list of them"),
        ("knn.n_per_class_list=all", "expected numbers of query tiles per class"),
        ("data.batch_size=${speed.workers}", "data.batch_size: Interpolation key 'speed.workers' not found"),
        ("data.query_dataset=???", "data.query_dataset=??? is still to be filled in"),
    ],
)
def test_mistakes(argument, message):
    with pytest.raises(UserError, match=re.escape(message)):
        settings_of(argument)


@pytest.mark.parametrize(
    ("name", "arguments", "expected"),
    [
        ("knn", ["knn.temperature=hot", "knn.nb_knn=ten", "data.image_size=12"], ["ten", "hot", "=12", "scored on"]),
        (
            "knn",
            ["--crop-size", "0", "--seed", "-1", "student.ffn_layer=mpl"],
            ["mlp", "seed -1", "size 0", "on"],
        ),
        ("linear", ["--epochs", "0", "--learning-rates", "nan", "1", "1"], ["epochs 0", "nan", "best head", "once"]),
        ("log_regression", ["--c-values", "nan", "0", "--finetune-on-val"], ["nan", "0.0", "scored on", "chooses C"]),
        ("cross_validate", ["--n-folds", "1", "--probes", "NN", "NN"], ["folds 1", "'NN'", "each once"]),
    ],
)
def test_all_mistakes_at_once(name, arguments, expected):
    """Of settings and flags, and those of one layer each for itself, before anything slow is imported."""
    with pytest.raises(UserError) as error:
        load_settings(make_parser(name).parse_intermixed_args(arguments))
    lines = str(error.value).split("\n  - ")[1:]
    assert all(part in line for part, line in zip(expected, lines, strict=True)), lines
