"""The commands from arguments to files, with the labels, classes and weights that they say they have."""

import csv
import errno
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import pytest
import torch
from eval_making import TINY, write_tiles
from ranks import run_ranks

from dinov2.configs import complete_config, parse_overrides
from dinov2.errors import UserError
from dinov2.eval import cross_validate, knn, linear, log_regression, results
from dinov2.models import build_model_from_cfg
from dinov2.utils import outputs
from dinov2.utils.outputs import OutputError, output_errors

SIZES = ["--resize-size", "28", "--crop-size", "28", "--num-workers", "0", "--resamples", "20"]


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with tiles to learn from, others to be scored on, and the weights of a random backbone."""
    root = tmp_path_factory.mktemp("commands")
    write_tiles(root / "train", classes=3)
    write_tiles(root / "val", classes=3, slides=2, prefix="other")
    torch.manual_seed(1)
    backbone, _ = build_model_from_cfg(complete_config(parse_overrides(TINY)), only_teacher=True)
    weights = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    torch.save({"teacher": weights}, root / "weights.pth")
    return root


def arguments(place: Path, output: Path, *more: str) -> list[str]:
    data = [f"--{name}-dataset=ImageFolder:root={place / name}" for name in ("train", "val")]
    weights = [] if "--untrained" in more else [f"--pretrained-weights={place / 'weights.pth'}"]
    return [*data, *weights, *SIZES, "--output-dir", str(output), *more, "--opts", *TINY]


def run(command: ModuleType, given: Sequence[str]) -> None:
    assert command.main(command.get_args_parser().parse_intermixed_args(given)) == 0


def results_of(output: Path, name: str) -> dict:
    return json.loads((output / f"evaluation_{name}.json").read_text())


def run_knn_and_read(given: list[str], output: Path) -> list:
    """The results of a rank's group, without what is said about the run."""
    run(knn, given)
    return results_of(output, "knn")["results"]


def test_knn(place, tmp_path):
    run(knn, arguments(place, tmp_path, "--nb_knn", "1", "3", "--n-per-class-list", "-1", "2", "--n-tries", "2"))
    found = results_of(tmp_path, "knn")
    assert found["data"]["train"] == {
        "dataset": f"ImageFolder:root={place / 'train'}",
        "samples": 36,
        "samples_of_classes": {"c0": 12, "c1": 12, "c2": 12},
        "groups": 12,
        "sites": None,
    }
    assert len(found["weights"]["sha256"]) == 64
    assert found["versions"]["torchmetrics"]
    assert found["settings"]["temperature"] == 0.07
    assert [row["classifier"] for row in found["results"]] == ["1-NN", "3-NN", "1-NN, 2 per class", "2-NN, 2 per class"]
    accuracy = found["results"][0]["metrics"]["acc"]
    assert 0 <= accuracy["low"] <= accuracy["value"] <= accuracy["high"] <= 1
    assert [sum(row) for row in found["results"][0]["confusion"]] == [6, 6, 6]
    assert "std" in found["results"][2]["metrics"]["acc"]
    lines = [json.loads(line) for line in (tmp_path / "results_eval_knn.json").read_text().splitlines()]
    assert [next(iter(line)) for line in lines] == [
        "('full', 1) Top 1",
        "('full', 3) Top 1",
        "(2, 1) Top 1",
        "(2, 2) Top 1",
    ]
    assert lines[0]["('full', 1) Top 1"] == pytest.approx(100 * accuracy["value"])
    rows = list(csv.DictReader((tmp_path / "evaluation_knn.csv").open()))
    assert float(next(row for row in rows if row["metric"] == "acc")["value"]) == pytest.approx(
        accuracy["value"], abs=1e-6
    )
    assert "| val | 1-NN " in (tmp_path / "evaluation_knn.md").read_text()


def test_knn_reports_on_sites_that_are_known(place, tmp_path):
    strings = []
    for name in ("train", "val"):
        paths = sorted((place / name).rglob("*.png"))
        rows = [f"{path},{path.parent.name},{path.stem[:-2]},h{path.stem[-3]}" for path in paths]
        (tmp_path / f"{name}.csv").write_text("\n".join(["path,class,slide,hospital", *rows]))
        columns = "label=class:group=slide:site=hospital"
        strings += [f"--{name}-dataset", f"CSV:file={tmp_path / name}.csv:{columns}"]
    run(knn, arguments(place, tmp_path, "--nb_knn", "1", "3", "--n-per-class-list", "-1", "2", *strings))
    found = results_of(tmp_path, "knn")
    assert (found["data"]["train"]["sites"], found["data"]["val"]["sites"]) == (4, 2)
    for row in found["results"][:2]:
        assert row["metrics"]["site_bacc_by_chance"]["value"] == 0.5
        assert 0 <= row["metrics"]["site_bacc"]["value"] <= 1
        assert 0 <= row["metrics"]["site_ratio"]["value"] <= 1
        assert row["metrics"]["site_ratio_by_chance"]["value"] == pytest.approx(27 / (27 + 2 * 27 / 3))
    assert "site_bacc" not in found["results"][2]["metrics"]
    table = (tmp_path / "evaluation_knn.md").read_text()
    assert table.splitlines()[0].rstrip(" |").endswith("by chance")


def test_ranks_and_batch_size_change_no_figure(place, tmp_path):
    """In float32 they are equal to the last bit, intervals and confusion matrices included."""
    expected = run_knn_and_read(arguments(place, tmp_path, "--batch-size", "36"), tmp_path)
    for world, batch_size in ((1, "1"), (2, "5"), (2, "16")):
        given = arguments(place, tmp_path, "--batch-size", batch_size, "--features-on-disk")
        assert run_ranks(run_knn_and_read, world, given, tmp_path) == [expected] * world


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_features_are_computed_once(place, tmp_path, suffix):
    file = tmp_path / f"features{suffix}"
    given = arguments(place, tmp_path, "--features", str(file))
    expected = run_knn_and_read(given, tmp_path)
    stamp = file.stat().st_mtime_ns
    assert run_knn_and_read(given, tmp_path) == expected
    assert file.stat().st_mtime_ns == stamp
    without = [part for part in given if part not in ("--pretrained-weights", str(place / "weights.pth"))]
    assert run_knn_and_read(without, tmp_path) == expected
    assert len(results_of(tmp_path, "knn")["weights"]["sha256"]) == 64
    with pytest.raises(UserError, match="has the features of other weights"):
        run(knn, arguments(place, tmp_path, "--untrained", "--features", str(file)))
    with pytest.raises(UserError, match="has the features of other images .crop_size 28, expected 14"):
        run(knn, [*given[: -len(TINY) - 1], "--crop-size", "14", "--opts", *TINY])


def test_linear_goes_on_where_it_was_broken_off(place, tmp_path):
    short = ["--epoch-length", "3", "--batch-size", "4", "--n-last-blocks", "1", "2", "--learning-rates", "0.1", "0.01"]
    test = ["--test-datasets", f"ImageFolder:root={place / 'val'}"]
    often = ["--epochs", "2", "--eval-period-iterations", "2", "--test-metric-types", "mean_per_class_accuracy"]
    run(linear, arguments(place, tmp_path / "whole", *short, *test, *often))
    found = results_of(tmp_path / "whole", "linear")
    assert [(row["set"], row["head"]) for row in found["results"]] == [
        (name, found["results"][0]["head"]) for name in ("val", "test 1")
    ]
    assert found["results"][0]["metrics"] == found["results"][1]["metrics"]
    lines = (tmp_path / "whole" / "results_eval_linear.json").read_text().splitlines()
    assert [line for line in lines if line.startswith("iter")] == ["iter: 1", "iter: 3", "iter: 5"]
    best = json.loads(lines[-3])["best_classifier"]
    assert best == {"name": found["results"][0]["head"], "accuracy": found["settings"]["scores_of_heads"][best["name"]]}
    assert json.loads(lines[-1]) == {
        f"ImageFolder:root={place / 'val'}_accuracy": 100 * found["results"][1]["metrics"]["bacc"]["value"]
    }
    # The same heads again from the checkpoint after one epoch; those of a finished run are only scored.
    broken = tmp_path / "broken"
    broken.mkdir()
    whole = torch.load(tmp_path / "whole" / "model_final.pth", weights_only=True)["model"]
    (tmp_path / "whole" / "running_checkpoint_linear_eval.pth").rename(broken / "running_checkpoint_linear_eval.pth")
    run(linear, arguments(place, broken, *short, "--epochs", "2"))
    again = torch.load(broken / "model_final.pth", weights_only=True)["model"]
    assert all(torch.equal(again[name], weight) for name, weight in whole.items())
    heads = ["--classifier-fpath", str(broken / "model_final.pth")]
    run(linear, arguments(place, tmp_path / "scored", *short, *heads, "--epochs", "2"))
    assert results_of(tmp_path / "scored", "linear")["results"][0]["metrics"] == found["results"][0]["metrics"]
    with pytest.raises(UserError, match="expected one, or one for each of the 0 --test-datasets"):
        run(linear, arguments(place, broken, *short, "--test-metric-types", "mean_accuracy", "mean_accuracy"))
    with pytest.raises(UserError, match="does not have the heads of this evaluation"):
        run(linear, arguments(place, broken, *short[:-1], "--epochs", "2"))


def linear_heads_of_rank(given: list[str], output: Path) -> dict[str, list]:
    run(linear, given)
    weights = torch.load(output / "model_final.pth", weights_only=True)["model"]
    return {name: weight.tolist() for name, weight in weights.items()}


def test_two_ranks_train_the_same_heads_on_augmented_images(place, tmp_path):
    """Two ranks with half the batch each see the same images, up to the rounding of another batch size."""
    short = ["--epochs", "1", "--epoch-length", "3", "--n-last-blocks", "1", "--learning-rates", "0.1"]
    expected = linear_heads_of_rank(arguments(place, tmp_path / "1", *short, "--batch-size", "4"), tmp_path / "1")
    given = arguments(place, tmp_path / "2", *short, "--batch-size", "2")
    for found in run_ranks(linear_heads_of_rank, 2, given, tmp_path / "2"):
        for name, weight in expected.items():
            torch.testing.assert_close(torch.tensor(found[name]), torch.tensor(weight), rtol=1e-4, atol=1e-5)


def test_logistic_regression(place, tmp_path):
    short = ["--c-values", "0.01", "1"]
    run(
        log_regression,
        arguments(place, tmp_path, *short, "--finetune-on-val", "--metric-type", "mean_per_class_accuracy"),
    )
    found = results_of(tmp_path, "log_regression")
    assert found["results"][0]["best_C"] in (0.01, 1.0)
    assert found["settings"]["metric"] == "bacc"
    assert set(found["settings"]["scores_of_C"]) == {"0.01", "1"}
    chosen_on = ["--finetune-dataset-str", f"ImageFolder:root={place / 'val'}"]
    run(log_regression, arguments(place, tmp_path, *short, *chosen_on, "--train-dtype", "float32"))
    assert set(results_of(tmp_path, "log_regression")["data"]) == {"train", "finetune", "val"}
    with pytest.raises(UserError, match="--finetune-on-val chooses C on the tiles of --val-dataset"):
        run(log_regression, arguments(place, tmp_path, "--finetune-on-val", *chosen_on))


def test_cross_validation(place, tmp_path):
    short = ["--n-folds", "3", "--iterations", "5", "--n-last-blocks", "1", "2"]
    run(cross_validate, arguments(place, tmp_path, *short, "--probes", "2-NN", "linear", "--untrained"))
    found = results_of(tmp_path, "cross_validate")
    assert found["weights"] == {"file": None, "sha256": "random, of seed 0"}
    sets = ["cross-validation", "cross-validation, all folds together", "val"]
    assert [(row["set"], row["classifier"]) for row in found["results"]] == [
        (name, probe) for probe in ("2-NN", "linear") for name in sets
    ]
    assert set(found["results"][0]["metrics"]["acc"]) == {"value", "std"}
    assert set(found["results"][1]["metrics"]["acc"]) == {"value", "low", "high"}
    assert " ± " in (tmp_path / "evaluation_cross_validate.md").read_text()
    with pytest.raises(UserError, match="unknown classifier of --probes '3-N'"):
        run(cross_validate, arguments(place, tmp_path, "--probes", "3-N"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pretrained-weights", "nowhere.pth"], "nowhere.pth does not exist"),
        (["--crop-size", "30"], "--crop-size 30: expected a multiple of student.patch_size, which is 14"),
        (["--n-last-blocks", "13"], r"--n-last-blocks 13: expected 1 .. 12"),
        (["--n-last-blocks", "0"], r"--n-last-blocks 0: expected 1 .. 12"),
        (["--nb_knn", "5", "1", "5"], r"nb_knn=\[5, 1, 5\]: expected each number once"),
        (["--n-per-class-list", "2", "2"], "n_per_class_list=.*: expected each number once"),
        (["--group-by", "site"], "train set .* cannot be grouped by site: .* CSV:file=LIST.csv:site=COLUMN"),
        (["student.arch=vit_small"], "does not fit the backbone"),
        (["--features", "features.pt"], r"ends with .npz or .safetensors"),
    ],
)
def test_mistakes(place, tmp_path, more, message):
    with pytest.raises(UserError, match=message):
        run(knn, [*arguments(place, tmp_path), *more])


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("--pretrained-weights", "there are no weights to evaluate"),
        ("--train-dataset", "there is nothing to learn from"),
        ("--val-dataset", "there is nothing to be scored on"),
    ],
)
def test_what_is_missing(place, tmp_path, missing, message):
    with pytest.raises(UserError, match=message):
        run(knn, [given for given in arguments(place, tmp_path) if not given.startswith(missing)])


def without_extraction(monkeypatch) -> None:
    """Fail where a feature would be computed."""
    monkeypatch.setattr("dinov2.eval.subject.extract_features", lambda *args, **kwargs: pytest.fail("too late"))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--n-folds", "1"], "--n-folds 1: expected at least 2"),
        (["--n-folds", "13"], "13 folds of 12 groups"),
        (["--probes", "1-NN", "linear", "1-NN"], "--probes 1-NN linear 1-NN: expected each once"),
        (["--n-last-blocks", "0", "4"], "--n-last-blocks 0 4: expected 1 .. 12"),
        (["--n-last-blocks", "1", "1"], "--n-last-blocks 1 1: expected each number once"),
    ],
)
def test_mistakes_in_folds_are_found_before_the_model_runs(place, tmp_path, monkeypatch, more, message):
    without_extraction(monkeypatch)
    with pytest.raises(UserError, match=message):
        run(cross_validate, [*arguments(place, tmp_path), *more])


def test_a_fold_with_one_class_to_learn_from(tmp_path, monkeypatch):
    without_extraction(monkeypatch)
    tiles = write_tiles(tmp_path / "tiles", slides=1)
    given = [f"--train-dataset=ImageFolder:root={tiles}", "--untrained", *SIZES, "--output-dir", str(tmp_path / "out")]
    with pytest.raises(UserError, match=r"fold 1 of 2 leaves only samples of the class 'c[01]' to train on"):
        run(cross_validate, [*given, "--n-folds", "2", "--opts", *TINY])


@pytest.mark.parametrize("command", [knn, linear, log_regression])
def test_a_set_of_one_class_is_not_scored(place, tmp_path, command):
    one = write_tiles(tmp_path / "one", classes=1, prefix="single")
    with pytest.raises(UserError, match="all 12 tiles of the val set .* are of the class 'c0': expected two classes"):
        run(command, arguments(place, tmp_path / "out", "--val-dataset", f"ImageFolder:root={one}"))


def test_an_output_folder_that_cannot_be_made(place, tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match="cannot write .*file"):
            run(knn, arguments(place, output))


@pytest.mark.parametrize(
    ("more", "what"), [([], "into .*out"), (["--features", "{}/none/f.npz"], "into .*none")], ids=["folder", "features"]
)
def test_a_full_disk_is_found_before_the_model_runs(place, tmp_path, monkeypatch, more, what):
    without_extraction(monkeypatch)

    def full(folder: Path) -> None:
        if re.search(what.removeprefix("into .*"), str(folder)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(outputs, "_write_probe", full)
    with pytest.raises(OutputError, match=f"cannot write {what}: the disk is full"):
        run(knn, arguments(place, tmp_path / "out", *(one.format(tmp_path) for one in more)))


@pytest.mark.parametrize(("command", "number"), [(knn, errno.EDQUOT), (log_regression, errno.EROFS)])
def test_figures_are_shown_though_they_cannot_be_written(place, tmp_path, monkeypatch, capsys, command, number):
    def fail(folder: Path, *args: object) -> None:
        with output_errors(folder):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(results, "write_text", fail)
    with pytest.raises(OutputError, match="cannot write"):
        run(command, arguments(place, tmp_path))
    assert "| balanced accuracy" in capsys.readouterr().out


def listed(folder: Path, *, order: slice) -> str:
    """A list of the tiles of a folder, the ones of each class in some order."""
    paths = [path for label in sorted(folder.glob("c*")) for path in sorted(label.glob("*.png"))[order]]
    rows = [f"{path},{path.parent.name}" for path in paths]
    (folder / "list.csv").write_text("\n".join(["path,class", *rows]))
    return f"CSV:file={folder / 'list.csv'}:label=class"


def test_kept_features_of_other_tiles_are_refused(place, tmp_path):
    """Both times the data set string, the number of tiles and their labels stay the same."""
    tiles = write_tiles(tmp_path / "tiles", classes=3, prefix="own")
    string = listed(tiles, order=slice(None))
    given = arguments(place, tmp_path, "--features", str(tmp_path / "f.npz"), "--val-dataset", string)
    expected = run_knn_and_read(given, tmp_path)
    assert run_knn_and_read(given, tmp_path) == expected
    assert run_knn_and_read([*given, "--group-by", "none"], tmp_path)
    listed(tiles, order=slice(None, None, -1))
    with pytest.raises(UserError, match=r"has the features of another val set \(other tiles\)"):
        run(knn, given)
    listed(tiles, order=slice(None))
    picture, other = sorted((tiles / "c1").glob("*.png"))[:2]
    picture.write_bytes(other.read_bytes())
    with pytest.raises(UserError, match=r"has the features of another val set \(other tiles\)"):
        run(knn, given)


def test_evaluations_say_how_fast_they_are_and_where_a_grid_ends(place, tmp_path, capsys):
    run(log_regression, arguments(place, tmp_path, "--c-values", "1e-6", "1e-5", "--resamples", "0"))
    said = capsys.readouterr().out
    assert re.search(r"features of train: 36 tiles in 0:00:\d\d, [\d.,e+]+ tiles/s", said)
    assert re.search(r"C = 1e-0\d scores best and is the (largest|smallest) one tried.*--c-values 1e-0\d ", said)
    run(cross_validate, arguments(place, tmp_path, "--probes", "1-NN", "--n-folds", "3", "--resamples", "0"))
    assert "cross-validation of 1-NN: 3 folds in" in capsys.readouterr().out
    short = ("--epochs", "1", "--epoch-length", "3", "--batch-size", "4", "--n-last-blocks", "1", "--resamples", "0")
    run(linear, arguments(place, tmp_path, "--cached-features", *short))
    assert "training of linear heads: 12 tiles in" in capsys.readouterr().out
