"""Which process am I, and collectives that do nothing when I am alone.

`enable()` recognises torchrun first, then SLURM, else a single process, which needs no process group.
gloo serves CPUs, NCCL serves GPUs; the training code is the same.
"""

from .collectives import all_gather_object, all_gather_rows, all_reduce_max, all_reduce_sum, barrier, broadcast_object
from .environment import LaunchEnvironment, detect_environment
from .group import (
    disable,
    enable,
    get_device,
    get_global_rank,
    get_global_size,
    get_local_rank,
    get_local_size,
    is_enabled,
    is_main_process,
    ranks_waited_for,
    set_timeout,
)
from .last_collective import describe_last_collective
from .whereabouts import set_activity

__all__ = [
    "LaunchEnvironment",
    "all_gather_object",
    "all_gather_rows",
    "all_reduce_max",
    "all_reduce_sum",
    "barrier",
    "broadcast_object",
    "describe_last_collective",
    "detect_environment",
    "disable",
    "enable",
    "get_device",
    "get_global_rank",
    "get_global_size",
    "get_local_rank",
    "get_local_size",
    "is_enabled",
    "is_main_process",
    "ranks_waited_for",
    "set_activity",
    "set_timeout",
]
