"""Scores during training: which there are, what is refused before it begins, and that restarts do not matter."""

import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from eval_making import write_tiles
from forks import exit_codes, forked, run_training
from runs import arguments, metrics_of, train

from dinov2.configs import complete_config
from dinov2.configs.tune_scores import trackable_scores
from dinov2.data.tar_index import IndexRequest, infer_entries
from dinov2.errors import UserError
from dinov2.models.position import resampling_matrix
from dinov2.train import train as train_module
from dinov2.train.tuning import summary

TUNE = ("tune.tile_size=32", "tune.crop_size=28", "tune.knn.nb_knn=[1,5]", "tune.tune_every_iterations=2")
SHORT = ("student.arch=vit_mini", "optim.max_iter=2", "optim.warmup_pct=0")


def scores_of(run: Path) -> list[dict]:
    return [json.loads(line) for line in (run / "results" / "tune.jsonl").read_text().splitlines()]


def log_of(run: Path) -> str:
    return (run / "logs" / "log.txt").read_text()


def pair(query: Path | str, test: Path | str) -> list[str]:
    """The settings of the fork's pair of data sets, of folders or data set strings."""
    strings = (one if isinstance(one, str) else f"ImageFolder:root={one}" for one in (query, test))
    return [f"tune.{side}_dataset_path={string}" for side, string in zip(("query", "test"), strings)]


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """Query and test tiles of two classes, of four slides each."""
    made = [write_tiles(tmp_path / name, prefix=f"{name}-") for name in ("query", "test")]
    return made[0], made[1]


@pytest.fixture
def tune_options(image_folder: Path, tmp_path: Path) -> list[str]:
    """The training tiles as a tar, which the fork evaluates on."""
    with tarfile.open(tmp_path / "downstream_dataset.tar", "w") as tar:
        tar.add(image_folder, arcname=".")
    rows = [f"{path.name},{path.parent.name}" for path in image_folder.rglob("*.jpg")]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    for split in ("query", "test"):
        infer_entries(IndexRequest(tmp_path / "downstream_dataset.tar", tmp_path, split, csv=tmp_path / "labels.csv"))
    return [*pair(*(f"KNN:root={tmp_path}:extra={tmp_path}:split={split}" for split in ("query", "test"))), *TUNE]


def test_scores_at_the_start_in_between_and_at_the_end(image_folder, tmp_path, tune_options):
    train(image_folder, tmp_path / "run", *tune_options)
    lines = scores_of(tmp_path / "run")
    assert [line["iteration"] for line in lines] == [0, 2, 4, 6]
    plain = {f"{n}.{m}_{k}" for n in ("teacher", "student") for m in ("acc", "bacc", "auc", "f1") for k in (1, 5)}
    bounds = {f"teacher.{m}_1_{end}" for m in ("acc", "bacc", "auc", "f1") for end in ("low", "high")}
    assert set(lines[0]) == {"iteration"} | plain | bounds
    assert all(line["teacher.acc_1"] == 1.0 for line in lines)  # query and test are the same tiles


def test_the_teacher_alone(image_folder, tmp_path, tune_options):
    train(image_folder, tmp_path / "run", *tune_options, "tune.student=false", "tune.resamples=0")
    names = {name for line in scores_of(tmp_path / "run") for name in line} - {"iteration"}
    assert names == {f"teacher.{metric}_{k}" for metric in ("acc", "bacc", "auc", "f1") for k in (1, 5)}
    assert "balanced accuracy of teacher: k=1 100.0 %" in log_of(tmp_path / "run")


def test_more_blocks_than_there_are(image_folder, tmp_path, tune_options, monkeypatch):
    monkeypatch.setattr(train_module, "build_model", lambda *args: pytest.fail("a model was built"))
    deep = ["tune.probes=[linear]", "tune.linear.n_last_blocks=[3]"]
    with pytest.raises(UserError, match=r"n_last_blocks=\[3\]: student.arch=vit_mini has 2 blocks"):
        train(image_folder, tmp_path / "run", *tune_options, *deep)


def test_all_probes_on_several_data_sets(image_folder, tmp_path, folders):
    query, test = folders
    settings = [
        *("tune.probes=[knn,linear,log_regression]", "tune.linear.iterations=5", "tune.knn.n_per_class_list=[-1,3]"),
        *(f"tune.datasets.crc.{side}=ImageFolder:root={root}" for side, root in (("query", query), ("test", test))),
        *("tune.knn.n_tries=2", "tune.resamples=20", "tune.early_stopping.tracking=crc.bacc_5"),
    ]
    train(image_folder, tmp_path / "run", *pair(query, test), *TUNE, *SHORT, *settings)
    line = scores_of(tmp_path / "run")[0]
    names = [name for name in line if name != "iteration" and not name.endswith(("_low", "_high"))]
    cfg = complete_config({"tune": {"probes": ["knn", "linear", "log_regression"]}})
    cfg.tune.query_dataset_path, cfg.tune.datasets = "x", {"crc": {}}
    cfg.tune.knn.nb_knn, cfg.tune.knn.n_per_class_list = [1, 5], [-1, 3]
    for network in ("teacher", "student"):
        own = [name.replace(f"{network}.", "") for name in names if network in name]
        assert sorted(own) == sorted(trackable_scores(cfg.tune))
    # Both pairs are the same tiles.
    assert all(line[f"crc.{name}"] == line[name] for name in line if name.startswith(("teacher", "student")))
    drawn = {name.rpartition("_")[0] for name in line if name.endswith("_low") and name.startswith("teacher")}
    assert {name.removeprefix("teacher.").replace("bacc", "M") for name in drawn if "bacc" in name} == {
        *("M_5", "linear_M", "log_regression_M")
    }
    assert all(line[f"{name}_low"] <= line[name] <= line[f"{name}_high"] for name in drawn)
    assert "scores after 2 steps: balanced accuracy of teacher / student: k=1 " in log_of(tmp_path / "run")
    assert ", linear " in log_of(tmp_path / "run")
    assert ", crc k=5 " in log_of(tmp_path / "run")


def test_the_line_for_people():
    scores = {"teacher.bacc_20": 0.5, "teacher.bacc_20_low": 0.4, "teacher.site_bacc_20": 0.9, "teacher.acc_20": 0.1}
    scores |= {"crc.teacher.linear_bacc": 0.751, "crc.student.linear_bacc": 0.7, "student.bacc_20": 0.25}
    assert summary(scores) == "balanced accuracy of teacher / student: k=20 50.0 / 25.0 %, crc linear 75.1 / 70.0 %"


@pytest.mark.thorough  # 5 s
def test_two_ranks_give_the_scores_of_one(image_folder, tmp_path, folders):
    # Of the same weights: after a step those of two ranks differ by rounding.
    settings = [*pair(*folders), *TUNE, *SHORT, "tune.probes=[knn,linear]", "tune.linear.iterations=5"]
    lines = []
    for ranks in (1, 2):
        command = arguments(image_folder, tmp_path / str(ranks), *settings, "tune.knn.batch_size=5")
        with forked(run_training, command, ranks=ranks, logs=tmp_path / "logs") as processes:
            assert exit_codes(processes, 60) == [0] * ranks, (tmp_path / "logs" / "rank0.txt").read_text()
        lines.append((tmp_path / str(ranks) / "results" / "tune.jsonl").read_text().splitlines())
    assert lines[0][0] == lines[1][0]
    assert [len(one) for one in lines] == [2, 2]


def test_evaluation_at_the_size_of_a_training_crop(image_folder, tmp_path, tune_options):
    # The evaluation is the first to resize positions to 14 px; training must be able to use what it has cached.
    resampling_matrix.cache_clear()
    train(image_folder, tmp_path / "run", *tune_options, "tune.crop_size=14", "optim.max_iter=2", "optim.warmup_pct=0")
    assert (tmp_path / "run" / "checkpoints" / "step-0000002").is_dir()


def test_a_resumed_run_does_not_repeat_its_scores(image_folder, tmp_path, tune_options):
    train(image_folder, tmp_path / "run", *tune_options)
    for step in (4, 6):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / f"step-000000{step}")
    train(image_folder, tmp_path / "run", *tune_options)
    assert [line["iteration"] for line in scores_of(tmp_path / "run")] == [0, 2, 4, 6]
    train(image_folder, tmp_path / "run", *tune_options, "--eval-only")
    assert [line["iteration"] for line in scores_of(tmp_path / "run")] == [0, 2, 4, 6]
    alone = json.loads((tmp_path / "run" / "eval" / "manual_6" / "scores.json").read_text())
    assert alone == scores_of(tmp_path / "run")[-1]


def test_training_stops_when_the_score_stays(image_folder, tmp_path, tune_options):
    stopping = [
        f"tune.early_stopping.{x}" for x in ("enable=true", "tracking=acc_1", "patience_pct=0.3", "min_epoch_pct=0")
    ]
    train(image_folder, tmp_path / "run", *tune_options, *stopping)
    names = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert names == ["step-0000002"]
    assert [line["iteration"] for line in metrics_of(tmp_path / "run")] == [0, 1]
    assert (tmp_path / "run" / "eval" / "training_1" / "teacher_checkpoint.pth").is_file()
    train(image_folder, tmp_path / "run", *tune_options, *stopping)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == names
    # More patience, and the same run goes on.
    stopping[2] = "tune.early_stopping.patience_pct=1"
    train(image_folder, tmp_path / "run", *tune_options, *stopping)
    assert [line["iteration"] for line in scores_of(tmp_path / "run")] == [0, 2, 4, 6]


def test_a_score_that_nothing_gives_is_told(image_folder, tmp_path, tune_options):
    train(image_folder, tmp_path / "run", *tune_options, *SHORT)
    assert "tracking=auc_20 is none of this run's scores, so that no best teacher is kept" in log_of(tmp_path / "run")
    assert not (tmp_path / "run" / "eval" / "best").exists()


@pytest.fixture
def no_model(monkeypatch):
    """Building a model fails the test."""
    monkeypatch.setattr(train_module, "build_model", lambda *args: pytest.fail("a model was built"))


def refused(images: Path, output: Path, *settings: str) -> str:
    with pytest.raises(UserError) as caught:
        train(images, output, *TUNE, *settings)
    return str(caught.value)


@pytest.mark.usefixtures("no_model")
class TestRefusedBeforeAModelIsBuilt:
    def test_data_sets_that_cannot_be_used(self, image_folder, tmp_path, folders):
        query, test = folders
        one = write_tiles(tmp_path / "one", classes=1, prefix="one-")
        three = write_tiles(tmp_path / "three", classes=3, prefix="three-")
        (tmp_path / "empty").mkdir()
        (query / "list.csv").write_text("path,kind\nc0/query-00_0.png,a\nc1/query-10_0.png,b\n")
        table = f"CSV:file={query / 'list.csv'}"
        for left, right, message in (
            (query, tmp_path / "empty", "holds no images"),
            (one, test, "all 12 tiles of the query set .* are of the class 'c0': expected two classes"),
            (query, one, "all 12 tiles of the test set .* are of the class 'c0': expected two classes"),
            (query, three, "the test set .* has tiles of 1 classes, such as 'c2', that the query set .* does not have"),
            (table, test, "the query set .* has no labels: a list needs label=COLUMN"),
            (f"{table}:label=class", test, "has no column 'class'; it has the columns path, kind"),
        ):
            with pytest.raises(UserError, match=message):
                train(image_folder, tmp_path / "run", *pair(left, right), *TUNE)

    def test_labels_out_of_range(self, image_folder, tmp_path, tune_options):
        from dinov2.data.datasets import KNNDataset

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(KNNDataset, "get_targets", lambda self: np.arange(24))
            with pytest.raises(UserError, match="the query set KNN.*: tile 2 .* the class number 2, expected 0 .. 1"):
                train(image_folder, tmp_path / "run", *tune_options)

    def test_too_few_slides_to_set_some_aside(self, image_folder, tmp_path, folders):
        few = write_tiles(tmp_path / "few", slides=1, prefix="few-")
        message = refused(image_folder, tmp_path / "run", *pair(few, folders[1]), "tune.probes=[linear]")
        assert "too few slides" in message
        assert "tune.probes=[knn]" in message

    def test_slides_in_two_sets(self, image_folder, tmp_path, folders):
        query, test = folders
        for path in sorted((query / "c0").glob("query-00_*.png")):
            shutil.copy(path, test / "c0")
        shutil.copytree(query / "c1", image_folder / "more")
        data = (*pair(query, test), "tune.allow_overlap=[]")
        message = refused(image_folder, tmp_path / "run", *data)
        assert "train_query: 4 of 8 slides of the query set, such as 'query-10', 'query-11', 'query-12'," in message
        assert "query_test: 1 of 9 slides of the test set, such as 'query-00', are in the query set as well" in message
        assert "train_test" not in message
        assert message.endswith("set tune.allow_overlap=[train_query,query_test]")
        message = refused(image_folder, tmp_path / "run", *data, "tune.allow_overlap=[query_test]")
        assert message.endswith("set tune.allow_overlap=[query_test,train_query]")

    def test_slides_of_some_tiles_are_in_two_sets(self, image_folder, tmp_path, folders):
        query, test = folders
        shutil.copytree(query / "c1", image_folder / "more")
        for number, path in enumerate(sorted((query / "c0").iterdir())):
            path.rename(path.with_name(f"{number}.png"))
        message = refused(image_folder, tmp_path / "run", *pair(query, test), "tune.allow_overlap=[]")
        assert "train_query: 4 of 4 slides of the query set, such as 'query-10', 'query-11', 'query-12'," in message

    def test_an_overlap_is_allowed_for_one_data_set_alone(self, image_folder, tmp_path, folders):
        query, test = folders
        shutil.copytree(query / "c1", image_folder / "more")
        data = [
            f"tune.datasets.{name}.{side}=ImageFolder:root={root}"
            for name in ("a", "b")
            for side, root in (("query", query), ("test", test))
        ]
        message = refused(image_folder, tmp_path / "run", *data, "tune.allow_overlap=[a.train_query]")
        assert "\n  b.train_query: 4 of 8 slides of the b query set" in message
        assert "a.train_query: " not in message


def test_an_allowed_overlap_is_a_warning(image_folder, tmp_path, folders):
    query, test = folders
    shutil.copytree(query / "c1", image_folder / "more")
    train(image_folder, tmp_path / "run", *pair(query, test), *TUNE, *SHORT, "tune.allow_overlap=[train_query]")
    assert "4 of 8 slides of the query set, such as" in log_of(tmp_path / "run")
    assert "as tune.allow_overlap allows" in log_of(tmp_path / "run")
