"""How this process was launched: by torchrun, by SLURM's srun, or alone.

torchrun is looked for first, so that it works inside a SLURM allocation as well.
"""

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dinov2.errors import UserError

TORCHRUN_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_JOB_NODELIST")


@dataclass(frozen=True)
class LaunchEnvironment:
    """The place of this process among all processes of the run."""

    launcher: str
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    master_addr: str = "127.0.0.1"
    master_port: int = 0


def detect_environment(variables: Mapping[str, str]) -> LaunchEnvironment:
    """Read the launch environment from environment variables.

    Raises:
        UserError: if only some of torchrun's variables are set.
    """
    present = [name for name in TORCHRUN_VARIABLES if name in variables]
    if len(present) == len(TORCHRUN_VARIABLES):
        return _from_torchrun(variables)
    if "RANK" in present or "WORLD_SIZE" in present:
        missing = sorted(set(TORCHRUN_VARIABLES) - set(present))
        raise UserError(
            f"partially set environment: {', '.join(present)} are set but {', '.join(missing)} are not. "
            "Start with torchrun, which sets all of them, or unset them to run a single process."
        )
    # Only srun starts several processes: a script that sbatch runs is alone, however many tasks it asked for.
    if all(name in variables for name in SLURM_VARIABLES) and int(variables["SLURM_STEP_NUM_TASKS"]) > 1:
        return _from_slurm(variables)
    return LaunchEnvironment("alone")


def _from_torchrun(variables: Mapping[str, str]) -> LaunchEnvironment:
    return LaunchEnvironment(
        launcher="torchrun",
        rank=int(variables["RANK"]),
        world_size=int(variables["WORLD_SIZE"]),
        local_rank=int(variables["LOCAL_RANK"]),
        local_world_size=int(variables["LOCAL_WORLD_SIZE"]),
        master_addr=variables["MASTER_ADDR"],
        master_port=int(variables["MASTER_PORT"]),
    )


def _from_slurm(variables: Mapping[str, str]) -> LaunchEnvironment:
    nodes = parse_node_list(variables["SLURM_JOB_NODELIST"])
    world_size = int(variables["SLURM_STEP_NUM_TASKS"])
    job_port = random.Random(variables["SLURM_JOB_ID"]).randint(20_000, 60_000)
    return LaunchEnvironment(
        launcher="slurm",
        rank=int(variables["SLURM_PROCID"]),
        world_size=world_size,
        local_rank=int(variables["SLURM_LOCALID"]),
        local_world_size=max(world_size // len(nodes), 1),
        master_addr=nodes[0],
        master_port=int(variables.get("MASTER_PORT", job_port)),
    )


def parse_node_list(text: str) -> list[str]:
    """Expand SLURM's short form: "gpu[01-03,7],login" -> gpu01, gpu02, gpu03, gpu7, login."""
    nodes: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        match = re.fullmatch(r"([^\[]*)\[([^\]]*)\](.*)", item)
        if match is None:
            nodes.append(item)
            continue
        prefix, ranges, suffix = match.groups()
        nodes.extend(f"{prefix}{number}{suffix}" for number in _expand_ranges(ranges))
    return nodes


def _expand_ranges(ranges: str) -> list[str]:
    """ "01-03,7" -> 01, 02, 03, 7, keeping leading zeros."""
    numbers: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers.extend(str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1))
    return numbers
