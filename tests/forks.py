"""Trainings in processes of their own, forked from the tests so that torch is not imported again."""

import logging
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch
from ranks import free_port
from torch.utils.data import get_worker_info

from dinov2.data.datasets import ImageFolderDataset
from dinov2.train.train import get_args_parser, main
from dinov2.utils.cli import run_command


@contextmanager
def forked(function: Callable[..., Any], *args: Any, ranks: int = 1, logs: Path) -> Iterator[list[BaseProcess]]:
    """Call function(rank, *args) in processes that find themselves launched as by torchrun, if they are several.

    Their output goes to logs/rank{r}.txt. Whatever still runs at the end of the block is killed, and its children
    with it.
    """
    port = free_port()
    logs.mkdir(parents=True, exist_ok=True)
    outputs = [logs / f"rank{rank}.txt" for rank in range(ranks)]
    for output in outputs:
        output.touch()
    context = get_context("fork")
    processes: list[BaseProcess] = [
        context.Process(target=_child, args=(function, args, rank, ranks, port, output))
        for rank, output in enumerate(outputs)
    ]
    try:
        for process in processes:
            process.start()
        yield processes
    finally:
        for process in processes:
            for child in [process.pid, *children_of(process.pid)]:
                end(child)
            wait_until(lambda ended=process: ended.exitcode is not None)


def run_training(rank: int, arguments: list[str], prepare: Callable[[int], None] | None = None) -> None:
    """The training command in a forked process, after what a test does to it."""
    if prepare:
        prepare(rank)
    run_command(lambda: main(get_args_parser().parse_intermixed_args(arguments)))


def read_without_end(fifo: Path) -> Callable[[int], None]:
    """What makes the sixth read of a worker wait for a writer that never comes."""
    os.mkfifo(fifo)
    path_of = ImageFolderDataset.path_of
    reads = []

    def leading_to_fifo(self, index):
        if get_worker_info() is not None:  # what opens a data set asks for paths as well
            reads.append(index)
        return fifo if len(reads) == 6 else path_of(self, index)

    def prepare(rank: int) -> None:
        ImageFolderDataset.path_of = leading_to_fifo

    return prepare


def exit_codes(processes: list[BaseProcess], timeout: float) -> list[int | None]:
    """How processes ended; None for those that have not within some seconds."""
    deadline = time.monotonic() + timeout
    # Not by `join`, which also waits for the children of a process.
    while None in (codes := [process.exitcode for process in processes]) and time.monotonic() < deadline:
        time.sleep(0.01)
    return codes


def wait_until(condition: Callable[[], Any], timeout: float = 60, pause: float = 0.01) -> Any:
    """What a condition gives as soon as that is true.

    Raises:
        AssertionError: if it is not within `timeout` seconds.
    """
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f"still not the case after {timeout} s"
        time.sleep(pause)
    return found


def children_of(process: int | None) -> list[int]:
    """Ids of all processes below a process."""
    try:
        own = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []
    return [number for child in map(int, own) for number in (child, *children_of(child))]


def is_running(process: int) -> bool:
    """Whether there is such a process and it has not ended."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def end(process: int | None) -> None:
    """Kill a process if it is there."""
    if process is not None and is_running(process):
        os.kill(process, 9)


def _child(function: Callable[..., Any], args: tuple[Any, ...], rank: int, ranks: int, port: int, output: Path) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.__stdout__ = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = sys.__stderr__ = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    logging.getLogger().handlers.clear()  # those of pytest
    torch.set_num_threads(1)
    os.environ.update(OMP_NUM_THREADS="1")
    if ranks > 1:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks}
        os.environ.update({name: str(value) for name, value in places.items()})
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    function(rank, *args)
