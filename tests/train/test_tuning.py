"""k-NN during training, and stopping by it."""

import json
import shutil
import tarfile
from pathlib import Path

import pytest
from runs import metrics_of, train

from dinov2.configs import complete_config
from dinov2.data.tar_index import IndexRequest, infer_entries
from dinov2.models.position import resampling_matrix
from dinov2.train.schedules import resolve_timeline
from dinov2.train.tuning import EarlyStopping


@pytest.fixture
def tune_options(image_folder: Path, tmp_path: Path) -> list[str]:
    with tarfile.open(tmp_path / "downstream_dataset.tar", "w") as tar:
        tar.add(image_folder, arcname=".")
    rows = [f"{path.name},{path.parent.name}" for path in image_folder.rglob("*.jpg")]
    (tmp_path / "labels.csv").write_text("\n".join(["filename,label", *rows]) + "\n")
    for split in ("query", "test"):
        infer_entries(IndexRequest(tmp_path / "downstream_dataset.tar", tmp_path, split, csv=tmp_path / "labels.csv"))
    paths = [
        f"tune.{split}_dataset_path=KNN:root={tmp_path}:extra={tmp_path}:split={split}" for split in ("query", "test")
    ]
    return [*paths, "tune.tile_size=32", "tune.crop_size=28", "tune.knn.nb_knn=[1,5]", "tune.tune_every_iterations=2"]


def test_scores_at_the_start_in_between_and_at_the_end(image_folder, tmp_path, tune_options):
    train(image_folder, tmp_path / "run", *tune_options)
    lines = [json.loads(line) for line in (tmp_path / "run" / "results" / "tune.jsonl").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [0, 2, 4, 6]
    assert set(lines[0]) == {"iteration"} | {
        f"{n}.{m}_{k}" for n in ("teacher", "student") for m in ("acc", "bacc", "auc") for k in (1, 5)
    }
    assert all(line["teacher.acc_1"] == 1.0 for line in lines)  # query and test are the same tiles


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
    lines = (tmp_path / "run" / "results" / "tune.jsonl").read_text().splitlines()
    assert [json.loads(line)["iteration"] for line in lines] == [0, 2, 4, 6]


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


@pytest.mark.parametrize(
    ("mode", "scores", "stops"), [("max", [0.5, 0.6, 0.6, 0.5], [0, 0, 0, 1]), ("min", [0.5, 0.4, 0.3, 0.2], [0] * 4)]
)
def test_patience_is_in_iterations(mode, scores, stops):
    settings = {"enable": True, "tracking": "acc_10", "min_max": mode, "patience_pct": 0.2, "min_epoch_pct": 0.0}
    cfg = complete_config(
        {
            "optim": {"max_iter": 100, "warmup_epochs": 0, "freeze_last_layer_epochs": 0},
            "tune": {"early_stopping": settings},
        }
    )
    stopping = EarlyStopping.from_config(cfg, resolve_timeline(cfg, num_samples=10_000, global_batch_size=10))
    found = [stopping.update({"teacher.acc_10": score}, 10 * i) for i, score in enumerate(scores)]
    assert found == [bool(stop) for stop in stops]
    copy = EarlyStopping.from_config(cfg, resolve_timeline(cfg, num_samples=10_000, global_batch_size=10))
    copy.load_state_dict(stopping.state_dict())
    assert copy == stopping


def test_a_score_that_is_no_number_is_no_improvement():
    stopping = EarlyStopping("acc_1", 1.0, patience=5, minimum=0, best=0.4, best_iteration=10)
    assert stopping.update({"teacher.acc_1": float("nan")}, 15)
    assert stopping.best == 0.4
