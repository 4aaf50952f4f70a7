"""What a job asks of a SLURM cluster.

The values end up in a batch script. submitit quotes them, and what could mean anything to a shell is refused before.
"""

import re
from dataclasses import dataclass
from typing import Any

from dinov2.errors import UserError

SIGNAL_DELAY = 120  # seconds before the end of the job's time at which it is asked to save and go

# What the text of an option may be: the pattern, and what it is called in a message.
_NAMES = (r"[\w.+@-]+", "letters, digits and . + @ - _")
_LISTS = (r"[\w.+-]+(,[\w.+-]+)*", "names with commas between them")
_PATTERNS = {
    "name": (r"[\w.:+-]+", "letters, digits and . : + - _"),
    "partition": _LISTS,
    "account": _NAMES,
    "qos": _NAMES,
    "constraint": (r"[\w.+,:&|*()\[\]-]+", "features, with & or | between them"),
    "exclude": (r"[\w.,\[\]-]+", "a list of nodes such as gpu[01-03,7],login"),
    "comment": (r"[\w.,:/@#+=()%-][\w .,:/@#+=()%-]*", "letters, digits, spaces and . , : / @ # + = ( ) % - _"),
}


@dataclass(frozen=True)
class JobRequest:
    """Nodes, GPUs, time and what else a job asks for; one process a GPU."""

    name: str
    nodes: int = 1
    gpus_per_node: int = 8
    cpus_per_task: int = 10
    mem_gb: int = 0  # of each node; 0: all it has
    timeout: int = 2800  # minutes
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    exclude: str | None = None
    comment: str | None = None

    def __post_init__(self) -> None:
        """Check all values.

        Raises:
            UserError: names the option and says what would be right.
        """
        for option, least in (("nodes", 1), ("gpus_per_node", 0), ("cpus_per_task", 1), ("mem_gb", 0), ("timeout", 1)):
            if getattr(self, option) < least:
                raise UserError(f"{_flag(option)} {getattr(self, option)}: expected {least} or more")
        for option, (pattern, meaning) in _PATTERNS.items():
            text = getattr(self, option)
            if text is not None and not re.fullmatch(pattern, text, flags=re.ASCII):
                raise UserError(f"{_flag(option)} {text!r}: expected {meaning}; without a value leave the option out")

    @property
    def tasks_per_node(self) -> int:
        """Processes on each node: one a GPU, or one where there is none."""
        return max(self.gpus_per_node, 1)

    def slurm_parameters(self) -> dict[str, Any]:
        """The request in the words of submitit's `SlurmExecutor`."""
        parameters = {
            "job_name": self.name,
            "nodes": self.nodes,
            "gpus_per_node": self.gpus_per_node or None,
            "ntasks_per_node": self.tasks_per_node,
            "cpus_per_task": self.cpus_per_task,
            "mem": f"{self.mem_gb}GB",
            "time": self.timeout,
            "signal_delay_s": SIGNAL_DELAY,
            # A job that loses a node or is preempted begins again; and where one process fails, all end at once.
            "additional_parameters": {"requeue": True},
            "srun_args": ["--kill-on-bad-exit=1"],
        }
        parameters.update({name: getattr(self, name) for name in _PATTERNS if name != "name"})
        return {name: value for name, value in parameters.items() if value is not None}

    def local_parameters(self) -> dict[str, Any]:
        """The request in the words of submitit's `LocalExecutor`, which starts processes on this machine.

        Raises:
            UserError: for more than one node.
        """
        if self.nodes > 1:
            raise UserError(f"--nodes {self.nodes} needs --cluster slurm; this machine is one node")
        return {
            "gpus_per_node": self.gpus_per_node,
            "tasks_per_node": self.tasks_per_node,
            "timeout_min": self.timeout,
            "signal_delay_s": SIGNAL_DELAY,
        }


def check_job_folder(path: str) -> None:
    """Check the folder of a job, whose name becomes part of a batch script.

    Raises:
        UserError: for characters that SLURM or a shell understand in another way; `%j`, the job's id, is fine.
    """
    if not path or not path.isprintable() or "\\" in path or "%" in path.replace("%j", ""):
        raise UserError(
            f"--output-dir {path!r}: expected a path without line breaks, backslashes and percent signs, apart from %j "
            "for the id of the job"
        )


def _flag(option: str) -> str:
    return "--ngpus" if option == "gpus_per_node" else f"--{option.replace('_', '-')}"
