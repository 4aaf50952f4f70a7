"""Work spread over processes: results in order, and no process that outlives the one it works for.

Each process has a pipe of its own and the items take turns, so that there are no locks, semaphores or threads that a
kill could leave behind.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from multiprocessing import get_context, resource_tracker
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from dinov2.errors import UserError
from dinov2.utils.child_processes import follow_parent
from dinov2.utils.open_files import need_open_files
from dinov2.utils.signals import signals_held

QUEUED = 8  # items that wait for each process: enough to keep it busy, few enough to fit into a pipe

In = TypeVar("In")
Out = TypeVar("Out")


class LostWorkerError(UserError):
    """A process of a pool was killed; who uses the pool knows better by what."""


def in_order(work: Callable[[In], Out], items: Iterable[In], *, workers: int) -> Iterator[tuple[In, Out]]:
    """Each item with what `work` makes of it, in order.

    Args:
        workers: processes, which start fresh, since forking one with threads can hang; 0 or 1 works in this one.
    Raises:
        LostWorkerError: if one of them ends; what `work` raises is raised here.
    """
    if workers <= 1:
        yield from ((item, work(item)) for item in items)
        return
    under_way: deque[tuple[In, Connection]] = deque()
    with _processes(work, workers) as pipes:
        try:
            for number, item in enumerate(items):
                if len(under_way) >= QUEUED * workers:
                    yield _received(*under_way.popleft())
                pipe = pipes[number % workers]
                pipe.send(item)
                under_way.append((item, pipe))
            while under_way:
                yield _received(*under_way.popleft())
        except (EOFError, ConnectionError) as error:
            raise LostWorkerError("a worker process was killed: too little memory?") from error


@contextmanager
def _processes(work: Callable[[Any], Any], count: int) -> Iterator[list[Connection]]:
    """Pipes to processes that run `work` on what they are sent, for the block."""
    need_open_files(4 * count, f"{count} workers")
    context = get_context("spawn")
    resource_tracker.ensure_running()  # which lets signals through when it starts
    with ExitStack() as cleanup:
        pipes = []
        for _ in range(count):
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, work), daemon=True)
            with signals_held():  # until it follows this process
                process.start()
            theirs.close()
            cleanup.callback(process.join)
            cleanup.callback(process.kill)
            cleanup.callback(ours.close)
            pipes.append(ours)
        yield pipes


def _serve(pipe: Connection, work: Callable[[Any], Any]) -> None:
    follow_parent()
    with suppress(EOFError, ConnectionError):  # the parent needs no more
        while True:
            item = pipe.recv()
            try:
                answer: tuple[Any, Exception | None] = (work(item), None)
            except Exception as error:
                answer = (None, error)
            pipe.send(answer)


def _received(item: In, pipe: Connection) -> tuple[In, Any]:
    result, error = pipe.recv()
    if error is not None:
        raise error
    return item, result
