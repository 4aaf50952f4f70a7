"""Several gloo processes for one test."""

import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from typing import Any

import torch

from dinov2 import distributed


def run_ranks(function: Callable[..., Any], world_size: int, *args: Any, timeout: float = 120) -> list[Any]:
    """Call function(*args) in `world_size` processes that form a gloo group; their results in rank order.

    The processes are forked, so that torch is not imported again, and compute with one thread each.

    Raises:
        AssertionError: if one of them fails or takes longer than `timeout` seconds, with its traceback.
    """
    context = get_context("fork")
    port = free_port()
    processes, ends = [], []
    for rank in range(world_size):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_rank_main, args=(function, args, rank, world_size, port, sender), daemon=True)
        process.start()
        sender.close()
        processes.append(process)
        ends.append(receiver)
    try:
        return [_result(end, rank, timeout) for rank, end in enumerate(ends)]
    finally:
        for process in processes:
            process.kill()
            process.join()


def free_port() -> int:
    """A TCP port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def _rank_main(
    function: Callable[..., Any], args: tuple[Any, ...], rank: int, world_size: int, port: int, sender: Connection
) -> None:
    torch.set_num_threads(1)
    os.environ.update(
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE=str(world_size),
        LOCAL_WORLD_SIZE=str(world_size),
    )
    try:
        distributed.enable(overwrite=True)
        sender.send((True, function(*args)))
        distributed.disable()
    except BaseException:
        sender.send((False, traceback.format_exc()))
    os._exit(0)


def _result(end: Connection, rank: int, timeout: float) -> Any:
    assert wait([end], timeout), f"rank {rank} gave no result in {timeout} s"
    try:
        good, value = end.recv()
    except EOFError:
        raise AssertionError(f"rank {rank} was killed") from None
    assert good, f"rank {rank}: {value}"
    return value
