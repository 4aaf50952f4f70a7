"""What the README tells people to type works, on a small stand-in for the data set it names."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
# A model and a run small enough for a test; everything else is as the README says.
SMALL = (
    "student.arch=vit_tiny dino.head_n_prototypes=64 ibot.head_n_prototypes=64 train.batch_size_per_gpu=4 "
    "train.num_workers=1 crops.global_crops_size=28 crops.local_crops_size=14 crops.local_crops_number=2 "
    "optim.max_iter=4 optim.warmup_pct=0 optim.freeze_last_layer_pct=0 tune.tile_size=32 tune.crop_size=28"
)


def block(language: str, containing: str) -> str:
    """The code block in a language that contains a text."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)
    return next(text for text in blocks if containing in text)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A folder that looks like the repository with NCT-CRC beside its files."""
    for name in ("scripts", "dinov2"):
        (tmp_path / name).symlink_to(ROOT / name)
    rng = np.random.default_rng(0)
    for folder in ("NCT-CRC-HE-100K", "CRC-VAL-HE-7K"):
        for tissue in ("ADI", "TUM"):
            (tmp_path / folder / tissue).mkdir(parents=True)
            for number in range(5):
                pixels = rng.integers(0, 256, (48, 48, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / tissue / f"{tissue}-{folder[:3]}{number}.tif")
    return tmp_path


@pytest.mark.thorough  # 13 s
def test_training_commands_and_use_of_the_result(workplace):
    commands = block("bash", "infer_entries.py")
    commands = re.sub(r"pip install.*\n", "", commands)
    commands = commands.replace("torchrun --nproc_per_node=8", "python").replace("optim.epochs=20", SMALL)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    found = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", commands],
        cwd=workplace,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert found.returncode == 0, found.stderr
    assert "scores after 4 steps" in found.stdout
    export = workplace / "runs" / "nct-vitl14" / "eval" / "training_3" / "teacher_checkpoint.pth"
    assert export.is_file()

    code = block("python", "load_state_dict").replace("training_1939", "training_3")
    code = code.replace("vit_large(", "vit_tiny(").replace("import vit_large", "import vit_tiny")
    code = code.replace("img_size=224,", "img_size=28, ffn_layer='mlp',")
    found = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(tuple(features.shape))"],
        cwd=workplace,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout.strip() == "(1, 192)", found.stderr


def test_files_that_the_readme_links_exist():
    links = re.findall(r"\]\((?!http)([^)#]+)", README)
    assert len(links) > 5
    assert [link for link in links if not (ROOT / link).exists()] == []
