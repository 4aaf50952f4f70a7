"""How this process was launched: by torchrun, by SLURM's srun, or alone.

torchrun is looked for first, so that it works inside a SLURM allocation as well.
"""

import itertools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

from dinov2.errors import UserError

TORCHRUN_VARIABLES = ("MASTER_ADDR", "MASTER_PORT", "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
SLURM_VARIABLES = ("SLURM_JOB_ID", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
# Nodes of the step that this process is part of, else of the whole job; the last name is that of old versions.
NODE_LIST_VARIABLES = ("SLURM_STEP_NODELIST", "SLURM_JOB_NODELIST", "SLURM_NODELIST")


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

    def how_to_start(self, variables: Mapping[str, str]) -> str:
        """What starts all processes of such a run, and how to run one alone."""
        if self.launcher == "slurm":
            return (
                f"SLURM's variables say that this is one of {self.world_size} tasks: `srun -n {self.world_size} python "
                "...` starts all of them, in a script for sbatch or after salloc. For one process alone, as in a shell "
                "of `srun --pty bash`, write `env -u SLURM_STEP_NUM_TASKS python ...`"
            )
        if "TORCHELASTIC_RUN_ID" in variables:
            return "torchrun starts them: the same command on each of its --nnodes machines, with one --rdzv_endpoint"
        return (
            f"RANK={self.rank}, WORLD_SIZE={self.world_size} and MASTER_ADDR={self.master_addr} are set: torchrun, "
            "which sets them, starts all processes. For one process alone `unset RANK WORLD_SIZE`"
        )


def detect_environment(variables: Mapping[str, str]) -> LaunchEnvironment:
    """Read the launch environment from environment variables.

    Raises:
        UserError: if only some of torchrun's variables are set, or one is not right.
    """
    found = _read_environment(variables)
    if not (0 <= found.rank < found.world_size and 0 <= found.master_port < 1 << 16):
        raise UserError(
            f"the environment says that this is rank {found.rank} of {found.world_size}, which meet at port "
            f"{found.master_port}: ranks count from 0, and ports end at 65535. See RANK, WORLD_SIZE and MASTER_PORT"
        )
    return found


def _read_environment(variables: Mapping[str, str]) -> LaunchEnvironment:
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
    if all(name in variables for name in SLURM_VARIABLES) and _number(variables, "SLURM_STEP_NUM_TASKS") > 1:
        return _from_slurm(variables)
    return LaunchEnvironment("alone")


def _from_torchrun(variables: Mapping[str, str]) -> LaunchEnvironment:
    return LaunchEnvironment(
        launcher="torchrun",
        rank=_number(variables, "RANK"),
        world_size=_number(variables, "WORLD_SIZE"),
        local_rank=_number(variables, "LOCAL_RANK"),
        local_world_size=_number(variables, "LOCAL_WORLD_SIZE"),
        master_addr=variables["MASTER_ADDR"],
        master_port=_number(variables, "MASTER_PORT"),
    )


def _from_slurm(variables: Mapping[str, str]) -> LaunchEnvironment:
    node_list = next((variables[name] for name in NODE_LIST_VARIABLES if variables.get(name)), None)
    if node_list is None:
        raise UserError(f"started by srun, but none of {', '.join(NODE_LIST_VARIABLES)} names the nodes of the job")
    nodes = parse_node_list(node_list)
    world_size = _number(variables, "SLURM_STEP_NUM_TASKS")
    job_port = random.Random(variables["SLURM_JOB_ID"]).randint(20_000, 60_000)
    return LaunchEnvironment(
        launcher="slurm",
        rank=_number(variables, "SLURM_PROCID"),
        world_size=world_size,
        local_rank=_number(variables, "SLURM_LOCALID"),
        local_world_size=max(world_size // len(nodes), 1),
        master_addr=nodes[0] if len(nodes) > 1 else "127.0.0.1",  # the name of a machine need not lead to it
        master_port=_number(variables, "MASTER_PORT") if "MASTER_PORT" in variables else job_port,
    )


def _number(variables: Mapping[str, str], name: str) -> int:
    try:
        return int(variables[name])
    except ValueError:
        raise UserError(f"the environment variable {name} is {variables[name]!r}: expected a number") from None


def parse_node_list(text: str) -> list[str]:
    """Expand SLURM's short form: "gpu[01-03,7],a[1-2]b[3-4]" -> gpu01, gpu02, gpu03, gpu7, a1b3, a1b4, a2b3, a2b4.

    Raises:
        UserError: if it is no node list.
    """
    if not re.fullmatch(r"(?:[^][\s]|\[\d+(?:-\d+)?(?:,\d+(?:-\d+)?)*\])+", text):
        raise UserError(f"{text!r} is no list of nodes as SLURM writes it, such as gpu[01-03,7],login")
    nodes: list[str] = []
    for item in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", text):
        # Every second piece was in brackets.
        pieces = re.split(r"\[([^\]]*)\]", item)
        choices = [_expand_ranges(piece) if number % 2 else [piece] for number, piece in enumerate(pieces)]
        nodes.extend("".join(parts) for parts in itertools.product(*choices))
    return nodes


def _expand_ranges(ranges: str) -> list[str]:
    """ "01-03,7" -> 01, 02, 03, 7, keeping leading zeros."""
    numbers: list[str] = []
    for part in ranges.split(","):
        first, _, last = part.partition("-")
        numbers.extend(str(n).zfill(len(first)) for n in range(int(first), int(last or first) + 1))
    return numbers
