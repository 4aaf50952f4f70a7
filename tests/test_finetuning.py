"""What docs/finetuning.md tells people to type is understood, and names settings and files that exist."""

import re
import shlex
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config
from dinov2.train.train import get_args_parser
from dinov2.utils.config import get_cfg_from_args

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "finetuning.md").read_text(encoding="utf-8")
COMMANDS = [command.replace("\\\n", " ") for command in re.findall(r"```bash\n(.*?)```", TEXT, flags=re.DOTALL)]


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    config = tmp_path / "config.yaml"
    config.write_text("student:\n  arch: vit_small\n")
    words = shlex.split(command.replace("runs/first/config.yaml", str(config)))
    assert words[:2] == ["python", "dinov2/train/train.py"]
    cfg = get_cfg_from_args(get_args_parser().parse_intermixed_args(words[2:]))
    assert cfg.train.dataset_path
    assert cfg.student.arch == "vit_small"


def test_settings_of_the_tables_exist():
    defaults = complete_config({})
    named = re.findall(r"`((?:optim|head|distillation|dino|evaluation|student)\.\w+)", TEXT)
    assert len(named) > 8
    assert [key for key in named if OmegaConf.select(defaults, key, throw_on_missing=False, default="?") == "?"] == []
