"""Checkpoints of sharded DINOv2 runs are joined from the parts of all ranks, and nothing of them is executed."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from runs import SMALL

from dinov2.configs import merge_layers, parse_overrides
from dinov2.errors import UserError
from dinov2.models.weights import read_networks
from dinov2.models.weights.inert import SkippedTensor
from dinov2.models.weights.reading import read_content
from dinov2.models.weights.shards import in_rank_order, join_shards
from dinov2.train.ssl_meta_arch import SSLMetaArch

ROOT = Path(__file__).resolve().parents[2]
# A model that the script, a process of its own, knows too.
MODEL = [*(setting for setting in SMALL if not setting.startswith("student.arch=")), "student.arch=vit_tiny"]


pytestmark = pytest.mark.filterwarnings("ignore:Please use DTensor")


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """A process group of one, which a ShardedTensor needs to be made."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path / 'rendezvous'}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def write_parts(folder: Path, state: dict[str, torch.Tensor], ranks: int) -> list[Path]:
    """What the ranks of DINOv2 write: 1-D slices, the last the shortest, centres whole, and flat ShardedTensors."""
    from torch.distributed._shard.metadata import ShardMetadata
    from torch.distributed._shard.sharded_tensor import Shard, init_from_local_shards

    flat = torch.arange(6.0)
    place = ShardMetadata([0], [6], "rank:0/cpu")
    paths = []
    for rank in range(ranks):
        part = {"student.backbone._flat_param": init_from_local_shards([Shard(flat, place)], 6)}
        for name, tensor in state.items():
            size = -(-tensor.numel() // ranks)
            whole = name.endswith("center")
            part[name] = tensor if whole else tensor.flatten()[rank * size : (rank + 1) * size].clone()
        path = folder / f"model_0003749.rank_{rank}.pth"
        torch.save({"model": part, "optimizer": {"state": {}, "param_groups": []}, "iteration": 3749}, path)
        paths.append(path)
    return paths


def small_model() -> SSLMetaArch:
    return SSLMetaArch(merge_layers([("test", parse_overrides(MODEL))]))


def test_parts_become_the_whole(group, tmp_path):
    state = small_model().state_dict()
    paths = write_parts(tmp_path, state, ranks=3)
    shapes = {name: tensor.shape for name, tensor in state.items()}
    joined = join_shards(paths[::-1], shapes)
    assert all(torch.equal(joined[name], tensor) for name, tensor in state.items())
    with pytest.raises(UserError, match=r"parts of ranks \[0, 2\] were given"):
        join_shards([paths[0], paths[2]], shapes)
    with pytest.raises(UserError, match="a rank is missing, or the configuration is of another model"):
        join_shards(paths[:2], shapes)
    with pytest.raises(UserError, match="lack 1 tensors .* such as other"):
        join_shards(paths, {**shapes, "other": (1,)})
    with pytest.raises(UserError, match="join the parts of all ranks"):
        read_networks(paths[0])


@pytest.mark.thorough  # 5 s
def test_the_script(group, tmp_path):
    state = small_model().state_dict()
    paths = write_parts(tmp_path, state, ranks=2)
    config = tmp_path / "config.yaml"
    config.write_text("\n".join(_as_yaml(MODEL)))
    command = [sys.executable, "scripts/convert_dinov2_shards.py", "--config-file", str(config)]
    command += ["--output", str(tmp_path / "whole.pth"), *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    teacher = read_networks(tmp_path / "whole.pth").networks["teacher"]
    assert torch.equal(teacher.backbone["norm.weight"], state["teacher.backbone.norm.weight"])
    assert torch.equal(teacher.heads["dino_head"]["mlp.0.weight"], state["teacher.dino_head.mlp.0.weight"])


def _as_yaml(overrides: list[str]) -> list[str]:
    sections: dict[str, list[str]] = {}
    for override in overrides:
        key, _, value = override.partition("=")
        section, _, name = key.partition(".")
        sections.setdefault(section, []).append(f"  {name}: {value}")
    return [line for section, lines in sections.items() for line in (f"{section}:", *lines)]


def test_sharded_tensors_are_passed_over(group, tmp_path):
    path = write_parts(tmp_path, {"a": torch.arange(4.0)}, ranks=1)[0]
    flat = read_content(path)["model"]["student.backbone._flat_param"]
    assert type(flat) is SkippedTensor
    with pytest.raises(RuntimeError, match="has no values"):
        flat + 1


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["model.pth"], "expected a name such as"),
        (["a.rank_0.pth", "b.rank_1.pth"], "several checkpoints"),
        (["a.rank_1.pth"], "expected those of all ranks"),
    ],
)
def test_names_of_parts(names, message):
    with pytest.raises(UserError, match=message):
        in_rank_order([Path(name) for name in names])
    assert in_rank_order([Path("m.rank_1.pth"), Path("m.rank_0.pth")]) == [Path("m.rank_0.pth"), Path("m.rank_1.pth")]
