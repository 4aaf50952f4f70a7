"""Whole runs: what they write, how they go on after a crash, how several processes agree."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from forks import exit_codes, forked, run_training
from ranks import free_port
from runs import ELSEWHERE, SMALL, arguments, metrics_of, train

from dinov2.errors import UserError
from dinov2.train import loop as loop_module
from dinov2.train.checkpoint import SavedCheckpoint
from dinov2.train.guards import NonFiniteError
from dinov2.train.ssl_meta_arch import SSLMetaArch
from dinov2.train.train import get_args_parser, main

ROOT = Path(__file__).resolve().parents[2]
METRIC_KEYS = [
    *("iteration", "iter_time", "data_time", "lr", "wd", "mom", "last_layer_lr", "current_batch_size", "total_loss"),
    *("dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss", "ibot_loss"),
]
TIMED = ("iter_time", "data_time", "tiles_per_second", "data_wait_share")


def final_state(output: Path, step: int = 6) -> dict:
    saved = SavedCheckpoint(output / "checkpoints" / f"step-{step:07d}")
    tensors = saved.read_all()
    model = {name.removeprefix("model."): tensor for name, tensor in tensors.items() if name.startswith("model.")}
    return {**saved.values, "model": model, "tensors": tensors}


def assert_equal_states(a, b) -> None:
    """Bit for bit, through nested containers."""
    assert type(a) is type(b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal_states(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for first, second in zip(a, b, strict=True):
            assert_equal_states(first, second)
    elif isinstance(a, torch.Tensor):
        assert torch.equal(a, b)
    else:
        assert a == b or a != a


def test_what_a_run_writes(image_folder, tmp_path):
    output = tmp_path / "run"
    train(image_folder, output, "evaluation.eval_period_iterations=4")
    lines = metrics_of(output)
    assert [line["iteration"] for line in lines] == [0, 5]
    assert list(lines[0])[: len(METRIC_KEYS)] == METRIC_KEYS
    assert lines[0]["current_batch_size"] == 4.0
    parts = sum(lines[0][key] for key in METRIC_KEYS[-4:])
    assert lines[0]["total_loss"] == pytest.approx(parts, rel=1e-5)
    assert lines[0]["loss_total_optimized"] == pytest.approx(
        parts + lines[0]["koleo_loss"] + lines[0]["ibot_loss"], rel=1e-5
    )
    assert sorted(path.name for path in (output / "checkpoints").iterdir()) == [f"step-000000{i}" for i in (2, 4, 6)]
    assert sorted(path.name for path in (output / "eval").iterdir()) == ["training_3", "training_5"]
    exported = torch.load(output / "eval" / "training_5" / "teacher_checkpoint.pth", weights_only=True)
    assert list(exported) == ["teacher"]
    assert len(exported["teacher"]) == 43
    state = final_state(output)
    assert torch.equal(exported["teacher"]["backbone.norm.weight"], state["model"]["teacher.backbone.norm.weight"])
    assert (state["iteration"], state["samples_consumed"]) == (6, 24)
    assert (output / "config.yaml").is_file()
    assert (output / "timeline.json").is_file()


def test_a_finished_run_stays_finished(image_folder, tmp_path):
    train(image_folder, tmp_path / "run")
    before = final_state(tmp_path / "run")
    train(image_folder, tmp_path / "run")
    assert_equal_states(final_state(tmp_path / "run"), before)
    assert len(metrics_of(tmp_path / "run")) == 2


@pytest.mark.parametrize("centering", ["centering", "sinkhorn_knopp"])
def test_resume_is_exact(image_folder, tmp_path, monkeypatch, centering):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(image_folder, whole, f"train.centering={centering}")

    step = loop_module.train_step

    def crash_in_fourth_step(cfg, state, *args, **kwargs):
        if state.iteration == 3:
            raise KeyboardInterrupt
        return step(cfg, state, *args, **kwargs)

    monkeypatch.setattr(loop_module, "train_step", crash_in_fourth_step)
    with pytest.raises(KeyboardInterrupt):
        train(image_folder, broken, f"train.centering={centering}")
    monkeypatch.undo()
    train(image_folder, broken, f"train.centering={centering}", "train.num_workers=1")
    assert_equal_states(final_state(broken), final_state(whole))
    for ours, theirs in zip(metrics_of(broken), metrics_of(whole), strict=True):
        assert {k: v for k, v in ours.items() if k not in TIMED} == {k: v for k, v in theirs.items() if k not in TIMED}


def test_no_resume_starts_over_and_keeps_the_old_checkpoints(image_folder, tmp_path):
    output = tmp_path / "run"
    train(image_folder, output)
    main(get_args_parser().parse_intermixed_args([*arguments(image_folder, output, "train.seed=1"), "--no-resume"]))
    old = final_state(output / "before-1")
    assert len((output / "before-1" / "training_metrics.json").read_text().splitlines()) == 2
    assert len(metrics_of(output)) == 2
    assert not torch.equal(
        old["model"]["student.backbone.pos_embed"], final_state(output)["model"]["student.backbone.pos_embed"]
    )


def test_pretrained_weights_reach_both_networks(image_folder, tmp_path):
    train(image_folder, tmp_path / "first", "optim.max_iter=1", "optim.warmup_pct=0", "optim.freeze_last_layer_pct=0")
    export = tmp_path / "first" / "eval" / "training_0" / "teacher_checkpoint.pth"
    options = ["--pretrained-weights", str(export), "crops.global_crops_size=42", "optim.base_lr=0", "optim.min_lr=0"]
    train(image_folder, tmp_path / "second", *options)
    first = torch.load(export, weights_only=True)["teacher"]
    second = final_state(tmp_path / "second")["model"]
    for network in ("student", "teacher"):
        assert torch.allclose(
            second[f"{network}.backbone.blocks.1.mlp.fc1.weight"], first["backbone.blocks.1.mlp.fc1.weight"], atol=1e-6
        )
    with pytest.raises(UserError, match="does not fit .* 4 unexpected"):
        train(image_folder, tmp_path / "third", "--pretrained-weights", str(export), "student.layerscale=null")


def test_networks_of_another_run_to_start_from(image_folder, tmp_path):
    train(image_folder, tmp_path / "first")
    folder = tmp_path / "first" / "checkpoints" / "step-0000006"
    train(image_folder, tmp_path / "second", f"MODEL.WEIGHTS={folder}", "optim.base_lr=0", "optim.min_lr=0")
    first, second = final_state(tmp_path / "first"), final_state(tmp_path / "second")
    assert_equal_states(
        dict(second["model"])["student.backbone.norm.weight"], first["model"]["student.backbone.norm.weight"]
    )
    with pytest.raises(UserError, match="is no checkpoint: expected a folder checkpoints/step-XXXXXXX"):
        train(image_folder, tmp_path / "third", f"MODEL.WEIGHTS={tmp_path}")


def test_eval_only_needs_and_exports_a_checkpoint(image_folder, tmp_path):
    output = tmp_path / "run"
    options = get_args_parser().parse_intermixed_args([*arguments(image_folder, output), "--eval-only"])
    with pytest.raises(UserError, match="there is none"):
        main(options)
    train(image_folder, output)
    main(options)
    manual = torch.load(output / "eval" / "manual_6" / "teacher_checkpoint.pth", weights_only=True)["teacher"]
    assert torch.equal(manual["backbone.norm.weight"], final_state(output)["model"]["teacher.backbone.norm.weight"])


def test_nothing_is_updated_with_a_loss_that_is_no_number(image_folder, tmp_path, monkeypatch):
    forward_backward = SSLMetaArch.forward_backward

    def poisoned(self, images, teacher_temp, **options):
        if not hasattr(self, "before"):
            self.before = {name: p.detach().clone() for name, p in self.student.named_parameters()}
            images["collated_global_crops"][0] = float("nan")
        kept.append(self)
        return forward_backward(self, images, teacher_temp, **options)

    kept: list[SSLMetaArch] = []
    monkeypatch.setattr(SSLMetaArch, "forward_backward", poisoned)
    with pytest.raises(NonFiniteError, match="iteration 0: total_loss = nan"):
        train(image_folder, tmp_path / "run")
    assert all(torch.equal(kept[0].before[name], p) for name, p in kept[0].student.named_parameters())


def run(*command: str, **environment: str) -> subprocess.CompletedProcess:
    variables = {**os.environ, "OMP_NUM_THREADS": "1", **environment}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, cwd=ROOT, env=variables, timeout=300
    )


COMPARABLE = [
    "ibot.loss_weight=0",
    "ibot.mask_sample_probability=0",
    "dino.koleo_loss_weight=0",
    "student.drop_path_rate=0",
    "train.centering=sinkhorn_knopp",
]


def run_pair(command: list[str], logs: Path) -> None:
    """Two processes without torchrun."""
    with forked(run_training, command, ranks=2, logs=logs) as processes:
        assert exit_codes(processes, 60) == [0, 0], (logs / "rank0.txt").read_text()


def run_pair_by_torchrun(command: list[str], logs: Path) -> None:
    """Two processes, as people start them."""
    port = f"--master_port={free_port()}"
    pair = run("-m", "torch.distributed.run", "--nproc_per_node=2", port, "dinov2/train/train.py", *command)
    assert pair.returncode == 0, pair.stderr


@pytest.mark.parametrize(
    ("launch", "options"),
    [
        (run_pair, COMPARABLE),
        # 25 s: torchrun starts processes that import torch
        pytest.param(run_pair_by_torchrun, [*COMPARABLE, ELSEWHERE], marks=pytest.mark.thorough),
    ],
)
def test_two_processes_train_like_one(launch, options, image_folder, tmp_path):
    launch(arguments(image_folder, tmp_path / "pair", *options, "train.batch_size_per_gpu=2"), tmp_path / "logs")
    train(image_folder, tmp_path / "one", *options)
    pair_model, one_model = final_state(tmp_path / "pair")["model"], final_state(tmp_path / "one")["model"]
    assert pair_model.keys() == one_model.keys()
    for name in one_model:
        assert torch.allclose(pair_model[name], one_model[name], atol=2e-4), name
    for ours, theirs in zip(metrics_of(tmp_path / "pair"), metrics_of(tmp_path / "one"), strict=True):
        assert ours["total_loss"] == pytest.approx(theirs["total_loss"], rel=1e-4)
    assert (tmp_path / "pair" / "logs" / "log.txt.rank1").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["optim.epoch=3"], "did you mean optim.epochs"),
        (["train.dataset_path=Pathologie:root=x:extra=y"], "did you mean Pathology"),
        (["student.arch=vit_smal"], "did you mean vit_small"),
        (["train.batch_size_per_gpu=64"], "larger than the data set of 24 samples"),
        (["crops.global_crops_size=30"], "28 and 42"),
    ],
)
def test_mistakes_get_a_message(options, message, image_folder, tmp_path):
    extra = [] if "dataset_path" in options[0] else ["--input-dir", str(image_folder)]
    with pytest.raises(UserError, match=message):
        main(get_args_parser().parse_intermixed_args(["--output-dir", str(tmp_path), *extra, *SMALL, *options]))


def test_changed_settings_are_named_and_refused_unless_allowed(image_folder, tmp_path):
    output = tmp_path / "run"
    train(image_folder, output, "optim.max_iter=2", "optim.warmup_pct=0", "optim.freeze_last_layer_pct=0")
    before = (output / "config.yaml").read_text()
    changes = ["optim.layerwise_decay=0.5", "train.batch_size_per_gpu=2"]
    differences = r"(?s)layerwise_decay: 0.9 -> 0.5.*max_iter: 2 -> 6.*global_batch: 4 -> 2.*allow-config-changes"
    with pytest.raises(UserError, match=differences):
        train(image_folder, output, *changes)
    assert (output / "config.yaml").read_text() == before
    train(image_folder, output, *changes, "--allow-config-changes")
    assert final_state(output)["samples_consumed"] == 2 * 4 + 4 * 2


def test_a_damaged_last_checkpoint_is_made_again(image_folder, tmp_path):
    train(image_folder, tmp_path / "run")
    whole = final_state(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-0000006" / "rank-00000.safetensors").write_bytes(b"damaged")
    train(image_folder, tmp_path / "run")
    assert_equal_states(final_state(tmp_path / "run"), whole)


@pytest.mark.parametrize("output", ["file", "file/below"])
def test_output_folder_that_cannot_be_made(output, image_folder, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write"):
        train(image_folder, tmp_path / output)


@pytest.mark.thorough  # 10 s: starts processes that import torch
def test_mistakes_end_without_traceback(image_folder, tmp_path):
    found = run("dinov2/train/train.py", *arguments(image_folder, tmp_path / "run", ELSEWHERE, "optim.epoch=3"))
    assert found.returncode == 2
    assert found.stderr.startswith("error: the command line: unknown key optim.epoch; did you mean optim.epochs")
    (image_folder / "a" / "a03.jpg").write_bytes(b"no image")
    strict = (ELSEWHERE, "train.num_workers=1", "data.on_bad_tile=raise")
    found = run("dinov2/train/train.py", *arguments(image_folder, tmp_path / "run", *strict))
    assert found.returncode == 2
    assert "a03.jpg) is not a usable image: expected JPEG" in found.stderr
    assert "Traceback" not in found.stderr


def test_a_bad_tile_is_replaced_and_listed(image_folder, tmp_path):
    (image_folder / "a" / "a03.jpg").write_bytes(b"no image")
    train(image_folder, tmp_path / "run", "train.num_workers=1")
    (line,) = (tmp_path / "run" / "results" / "bad_tiles.jsonl").read_text().splitlines()
    assert json.loads(line)["archive"].endswith("a03.jpg")
    assert metrics_of(tmp_path / "run")[-1]["iteration"] == 5


def test_import_is_light():
    code = (
        "import sys, torch, torchvision, dinov2.train.train;"
        "heavy = ('sklearn', 'torchmetrics', 'cv2', 'matplotlib', 'wandb', 'submitit');"
        "print([name for name in heavy if name in sys.modules])"
    )
    found = run("-c", code)
    assert found.stdout.strip() == "[]", found.stderr
