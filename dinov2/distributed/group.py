"""The process group of this run, if it needs one."""

import os
from datetime import timedelta

import torch
import torch.distributed as dist

from .environment import LaunchEnvironment, detect_environment
from .last_collective import recorded
from .meeting import meet
from .network import interface_towards, own_name_leads_nowhere
from .whereabouts import Whereabouts

_launch = LaunchEnvironment("alone")
_board: Whereabouts | None = None  # what the ranks of a group do


def enable(
    *,
    set_cuda_current_device: bool = True,
    overwrite: bool = False,
    timeout: timedelta = timedelta(minutes=30),
) -> LaunchEnvironment:
    """Find out how this process was launched and join the others, if there are any.

    Args:
        set_cuda_current_device: make this process's GPU the current one.
        overwrite: join again where this process already has; otherwise a second call is an error.
        timeout: how long the others are waited for, and how long a collective waits for a lost rank.
    Raises:
        LostRankError: if others do not come.
        UserError: if the environment is not right.
        RuntimeError: if called twice without `overwrite`.
    """
    global _launch, _board
    if dist.is_initialized() and not overwrite:
        raise RuntimeError("the process group exists already; enable(overwrite=True) makes a new one")
    disable()
    _launch = detect_environment(os.environ)
    device = get_device()
    if device.type == "cuda" and set_cuda_current_device:
        torch.cuda.set_device(device)
    if _launch.launcher != "alone":
        _choose_interface(_launch)
        store = meet(_launch, os.environ, timeout)
        _board = Whereabouts(store.clone(), _launch)  # type: ignore[attr-defined]  # missing in torch's stubs
        with recorded("forming the group"):
            dist.init_process_group(
                # Flags and objects travel between CPUs and wait for no GPU.
                "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
                store=store,
                rank=_launch.rank,
                world_size=_launch.world_size,
                timeout=timeout,
            )
    return _launch


def _choose_interface(launch: LaunchEnvironment) -> None:
    """Tell gloo how to reach other machines where it would not find out; `GLOO_SOCKET_IFNAME` overrules this."""
    if launch.world_size > launch.local_world_size and own_name_leads_nowhere():
        interface = interface_towards(launch.master_addr)
        if interface is not None:
            os.environ.setdefault("GLOO_SOCKET_IFNAME", interface)


def set_timeout(timeout: timedelta) -> None:
    """Choose how long collectives that begin from now on wait for a lost rank."""
    if is_enabled():
        # torch has no public name for this; torchtitan relies on it as well.
        dist.distributed_c10d._set_pg_timeout(timeout)


def disable() -> None:
    """Leave the process group, if there is one."""
    global _launch, _board
    if _board is not None:
        _board.close()
        _board = None
    if dist.is_initialized():
        dist.destroy_process_group()
    _launch = LaunchEnvironment("alone")


def ranks_waited_for() -> list[str]:
    """What the ranks do that this one waits for, or that are not heard of, as far as that is known."""
    return _board.behind if _board is not None else []


def is_enabled() -> bool:
    """Whether this process works in a group (of one or more)."""
    return dist.is_available() and dist.is_initialized()


def get_global_size() -> int:
    """Number of processes of the run."""
    return dist.get_world_size() if is_enabled() else 1


def get_global_rank() -> int:
    """Number of this process among all."""
    return dist.get_rank() if is_enabled() else 0


def get_local_rank() -> int:
    """Number of this process on its machine."""
    return _launch.local_rank if is_enabled() else 0


def get_local_size() -> int:
    """Number of processes on this machine."""
    return _launch.local_world_size if is_enabled() else 1


def is_main_process() -> bool:
    """Whether this process writes what is written once."""
    return get_global_rank() == 0


def get_device() -> torch.device:
    """This process's GPU, or the CPU where there is none."""
    if torch.cuda.is_available():
        return torch.device("cuda", _launch.local_rank % torch.cuda.device_count())
    return torch.device("cpu")
