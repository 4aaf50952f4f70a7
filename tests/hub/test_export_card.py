"""The model card says what files know, and nothing else."""

import json
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image
from runs import ELSEWHERE, train
from safetensors.torch import load_file

from dinov2.errors import UserError
from dinov2.hub import find, weights_digest
from dinov2.hub.__main__ import get_args_parser
from dinov2.hub.commands import COMMANDS
from dinov2.hub.export.facts import shortened
from dinov2.hub.export.markdown import code, plain
from dinov2.models.vision_transformer import vit_small, vit_tiny

SHORT = (
    ELSEWHERE,
    "optim.max_iter=4",
    "optim.warmup_pct=0",
    "optim.freeze_last_layer_pct=0",
    "teacher.momentum_teacher=0",
    "train.save_frequency=1",
    "evaluation.eval_period_iterations=2",
    "augmentation.mean=[0.7, 0.5, 0.6]",
    "student.interpolate_offset=0",
)
PACKAGES = {"timm": "timm", "huggingface": "transformers"}  # of the page's commands that are run
PUBLISHED = ["--mean", "0.485", "0.456", "0.406", "--std", "0.229", "0.224", "0.225"]


def export(output: Path, *arguments: object) -> str:
    """Export as safetensors; returns the card."""
    words = ["export", "--to", "safetensors", "--output", output, *arguments]
    COMMANDS["export"].run(get_args_parser().parse_args(list(map(str, words))))
    return (output / "README.md").read_text()


def fact(card: str, name: str) -> str:
    """The value in a row of one of the card's tables."""
    return re.search(rf"^\| {re.escape(name)} \| (.*) \|$", card, flags=re.MULTILINE)[1]


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A run with scores, made once."""
    folder = tmp_path_factory.mktemp("made")
    tiles = folder / "secret" / "tiles"
    (tiles / "a").mkdir(parents=True)
    for number in range(8):
        Image.new("RGB", (64, 64), (30 * number, 90, 120)).save(tiles / "a" / f"{number}.png")
    train(tiles, folder / "run", *SHORT)
    scores = [(0, 0.3, 0.2), (2, 0.8, 0.5), (4, 0.7, 0.6)]
    (folder / "run" / "results").mkdir(exist_ok=True)
    lines = [json.dumps({"iteration": i, "teacher.bacc_20": t, "student.bacc_20": s}) for i, t, s in scores]
    (folder / "run" / "results" / "tune.jsonl").write_text("\n".join(lines) + "\n")
    return folder


@pytest.fixture
def run(made, tmp_path) -> Path:
    """The run in a folder of its own."""
    return Path(shutil.copytree(made / "run", tmp_path / "run"))


def results(path: Path, weights: Path, accuracy: float) -> Path:
    content = {
        "evaluation": "knn",
        "weights": {"file": str(weights), "sha256": weights_digest(weights)},
        "data": {"train": {"dataset": "ImageFolder:root=/home/somebody/tiles", "samples": 1200}},
        "results": [
            {"set": "val", "classifier": "20-NN", "metrics": {"acc": {"value": accuracy}, "auc": {"value": None}}}
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))
    return path


def test_what_a_run_has_written(run, tmp_path):
    weights = run / "eval" / "training_1" / "teacher_checkpoint.pth"
    results(run / "results" / "val" / "evaluation_knn.json", weights, 0.917)
    results(run / "results" / "other" / "evaluation_knn.json", run / "config.yaml", 0.123)
    card = export(tmp_path / "hen-v1", "--weights", weights, "--licence", "MIT", "--mpp", 0.5)
    assert card.startswith("---\nlicense: mit\n")
    assert "\n# hen-v1\n" in card
    assert fact(card, "network") == "teacher"
    assert fact(card, "parameters") == f"{parameters(tmp_path / 'hen-v1'):,}"
    assert fact(card, "image") == "28 x 28 pixels, RGB"
    assert "mean [0.7, 0.5, 0.6], std [0.229, 0.224, 0.225]" in fact(card, "normalisation")
    assert fact(card, "micrometres per pixel") == "0.5"
    assert fact(card, "licence") == "MIT"
    assert fact(card, "iterations") == "2 of 4"
    assert fact(card, "data") == "`ImageFolder:root=tiles`"
    assert "/secret" not in card
    assert "optim.max_iter: 4\n" in card
    assert "`interpolate_offset = 0.0`" in card
    assert "| score | these weights, best teacher (2 iterations) | last (4 iterations) |" in card
    assert "| k-NN balanced accuracy, k = 20, teacher | 80.0 % | 70.0 % |" in card
    assert "91.7" in card
    assert "12.3" not in card
    assert "train: `ImageFolder:root=tiles, 1,200 tiles`" in card
    assert f"| `model.safetensors` | `{weights_digest(tmp_path / 'hen-v1' / 'model.safetensors')}` |" in card


def parameters(folder: Path) -> int:
    return sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def test_weights_of_a_run_by_its_folder_a_checkpoint_and_the_best(run, tmp_path):
    newest = export(tmp_path / "a", "--weights", run)
    assert fact(newest, "iterations") == "4 of 4"
    student = export(tmp_path / "b", "--weights", run / "checkpoints" / "step-0000004", "--network", "student")
    assert (fact(student, "iterations"), fact(student, "network")) == ("4 of 4", "student")
    assert "| k-NN balanced accuracy, k = 20, student | 60.0 % | 50.0 % |" in student
    assert "teacher |" not in student
    best = run / "eval" / "best"
    best.mkdir()
    (run / "eval" / "training_3" / "teacher_checkpoint.pth").rename(best / "teacher_checkpoint.pth")
    (best / "best.json").write_text('{"iteration": 2, "score": "teacher.bacc_20", "value": 0.8}')
    assert fact(export(tmp_path / "c", "--weights", best / "teacher_checkpoint.pth"), "iterations") == "2 of 4"
    (run / "config.yaml").rename(run / "settings.yaml")
    earlier = run / "eval" / "training_1" / "teacher_checkpoint.pth"
    with pytest.raises(UserError, match="normalised"):
        export(tmp_path / "d", "--weights", earlier)
    without = export(tmp_path / "d", "--weights", earlier, *PUBLISHED)
    assert fact(without, "data") == "not stated"
    assert "## Configuration" not in without


def test_what_is_not_known_is_not_said(tmp_path):
    torch.save(vit_tiny(14, img_size=28, block_chunks=0).state_dict(), tmp_path / "w.pth")
    card = export(tmp_path / "out", "--weights", tmp_path / "w.pth", *PUBLISHED)
    for name in ("micrometres per pixel", "licence", "data", "iterations"):
        assert fact(card, name) == "not stated"
    assert "license" not in card
    assert "| network |" not in card
    assert "## Results\n\nNot stated.\n" in card


def test_results_and_runs_of_other_weights_are_refused(run, tmp_path):
    weights = run / "eval" / "training_1" / "teacher_checkpoint.pth"
    other = results(tmp_path / "evaluation_knn.json", run / "eval" / "training_3" / "teacher_checkpoint.pth", 0.9)
    with pytest.raises(UserError, match=r"--results .*expected an evaluation_\*.json of .*found [0-9a-f]{64}"):
        export(tmp_path / "out", "--weights", weights, "--results", other)
    with pytest.raises(UserError, match="give both --mean R G B and --std R G B"):
        export(tmp_path / "out", "--weights", weights, *PUBLISHED[:4])
    own = results(tmp_path / "evaluation_linear.json", weights, 0.876)
    assert "87.6" in export(tmp_path / "out", "--weights", weights, "--results", own)
    own.write_text(json.dumps({**json.loads(own.read_text()), "results": [{"set": "val"}]}))
    with pytest.raises(UserError, match="is no file of results of dinov2.eval: KeyError"):
        export(tmp_path / "again", "--weights", weights, "--results", own)
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "timeline.json").write_text("{}")
    with pytest.raises(UserError, match="lies in the folder of another run"):
        export(tmp_path / "again", "--weights", weights, "--run", tmp_path / "b")
    with pytest.raises(UserError, match="b has no teacher: neither checkpoints"):
        export(tmp_path / "again", "--weights", tmp_path / "b")


def test_published_weights_bring_their_facts(tmp_path, cache):
    entry = find("dino_vits16")
    target = cache / "dino_vits16" / entry.urls[0].rpartition("/")[2]
    target.parent.mkdir(parents=True)
    state = vit_small(16, img_size=32, init_values=None, block_chunks=0).state_dict()
    torch.save({name: tensor for name, tensor in state.items() if name != "mask_token"}, target)
    card = export(tmp_path / "out", "--weights", "dino_vits16", "--offline")
    assert card.startswith("---\nlicense: apache-2.0\n")
    assert fact(card, "data") == "`ImageNet-1k`"
    assert "mean [0.485, 0.456, 0.406]" in fact(card, "normalisation")
    assert plain(entry.notice) in card


@pytest.mark.thorough  # 4 s
def test_commands_of_the_page(run, tmp_path, monkeypatch, cache):
    page = (Path(__file__).resolve().parents[2] / "docs" / "export.md").read_text()
    commands = re.search(r"```bash\n(.*?)```", page, flags=re.DOTALL)[1].splitlines()
    (tmp_path / "runs").mkdir()
    best = run / "eval" / "best"
    (run / "eval" / "training_3").rename(best)
    (best / "best.json").write_text('{"iteration": 4}')
    run.rename(tmp_path / "runs" / "a")
    monkeypatch.chdir(tmp_path)
    for words in map(shlex.split, commands):
        args = get_args_parser().parse_args(words[3:])
        if find_spec(PACKAGES.get(args.to, "none")):
            COMMANDS["export"].run(args)
            assert (args.output / "README.md").is_file()


def test_text_from_outside_has_no_markup():
    assert plain("a|b\n<script> *x* [y](z)") == r"a\|b &lt;script&gt; \*x\* \[y\](z)"
    assert code("a`b|c\nd") == "`a'b/c d`"
    assert shortened(["P:root=/a/b c/t.tar:extra=~/x/e", "https://a.org/w.pth", "1/2", 3, "ab/c"]) == [
        "P:root=t.tar:extra=e",
        "https://a.org/w.pth",
        "1/2",
        3,
        "ab/c",
    ]
