"""What docs/evaluation.md tells people to type works, on a few small tiles."""

import re
import shlex
import subprocess
import sys
import tarfile
from importlib import import_module
from pathlib import Path

import pytest
import torch
from eval_making import TINY, write_tiles

from dinov2.configs import complete_config, parse_overrides
from dinov2.data import make_dataset
from dinov2.eval.metrics import classification_metrics
from dinov2.eval.results import TITLES
from dinov2.models import build_model_from_cfg

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
COMMANDS = [
    shlex.split(command)
    for block in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)
    for command in block.replace("\\\n", " ").splitlines()
]
SMALL = ["--resize-size", "28", "--crop-size", "28", "--num-workers", "0", "--resamples", "20"]
SHORT = {
    "linear": ["--epochs", "1", "--epoch-length", "3", "--n-last-blocks", "1"],
    "log_regression": ["--c-values", "0.1", "1"],
    "cross_validate": ["--iterations", "3", "--n-last-blocks", "1"],
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory) -> Path:
    """A folder with the tiles, the tables, the tar and the run that the page speaks of."""
    root = tmp_path_factory.mktemp("workplace")
    for name in ("scripts", "dinov2"):
        (root / name).symlink_to(ROOT / name)
    for name, prefix in (("tiles", "query"), ("others", "test")):
        write_tiles(root / "data" / name, slides=5, tiles=2, prefix=prefix)
    for table, folder in (("query", "tiles"), ("test", "others"), ("tiles", "others")):
        paths = sorted((root / "data" / folder).rglob("*.png"))
        rows = [f"{path},{path.name},{path.parent.name},{path.stem[:-2]},h{path.stem[-3]}" for path in paths]
        text = "\n".join(["path,filename,tissue,patient,hospital", *rows])
        (root / "data" / f"{table}.csv").write_text(text)
    with tarfile.open(root / "data" / "downstream_dataset.tar", "w") as tar:
        tar.add(root / "data" / "others", arcname="others")
    run = root / "runs" / "a"
    (run / "eval" / "training_9999").mkdir(parents=True)
    (run / "config.yaml").write_text("student:\n  arch: vit_tiny\n  patch_size: 14\n")
    backbone, _ = build_model_from_cfg(complete_config(parse_overrides(TINY)), only_teacher=True)
    weights = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    torch.save({"teacher": weights}, run / "eval" / "training_9999" / "teacher_checkpoint.pth")
    return root


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[1] == "-m"], ids=lambda words: words[2])
def test_evaluations(words, workplace, monkeypatch, capsys):
    monkeypatch.chdir(workplace)
    module = import_module(words[2])
    name = words[2].rpartition(".")[2]
    if words[2].startswith("dinov2.run"):
        assert module.main(words[3:]) == 0
        assert f"#SBATCH --job-name=dinov2:{name}\n" in capsys.readouterr().out
        return
    given = [*words[3:], *SMALL, *SHORT.get(name, []), "--opts", *TINY]
    assert module.main(module.get_args_parser().parse_intermixed_args(given)) == 0
    folder = Path(words[words.index("--output-dir") + 1])
    assert {path.name for path in folder.iterdir()} >= {
        f"evaluation_{name}.{suffix}" for suffix in ("md", "csv", "json")
    }


def test_slides_and_sites_of_a_tar(workplace):
    scripts = [words for words in COMMANDS if words[1].startswith("scripts/")]
    assert len(scripts) == 3
    for words in scripts:
        found = subprocess.run(
            [sys.executable, *words[1:]], cwd=workplace, capture_output=True, text=True, timeout=60, check=False
        )
        assert found.returncode == 0, found.stderr
    dataset = make_dataset(dataset_str=f"KNN:root={workplace}/data:extra={workplace}/data:split=test")
    assert sorted(dataset.get_groups("slide").names) == [f"test{label}{slide}" for label in "01" for slide in range(5)]
    assert sorted(dataset.get_groups("site").names) == [f"h{slide}" for slide in range(5)]


def test_the_table_of_figures_is_complete():
    table = TEXT.split("| figure |")[1].split("\n\n")[0]
    named = re.findall(r"`(\w+)`?", table)
    scores, labels = torch.eye(6), torch.arange(6)
    known = {metric for metric in classification_metrics(scores, labels) if "_" not in metric}
    assert known | {metric for metric in TITLES if metric.startswith("site_")} <= set(named)
    options = set(re.findall(r"`(--[\w-]+)", TEXT))
    parsers = [import_module(f"dinov2.eval.{name}").get_args_parser() for name in ("knn", *SHORT)]
    assert options - {"--nproc_per_node"} <= {option for parser in parsers for option in parser._option_string_actions}


def test_links_lead_somewhere():
    links = re.findall(r"\]\((?!http)([^)#]+)", TEXT)
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
