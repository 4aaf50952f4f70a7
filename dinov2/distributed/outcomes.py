"""Ranks that go on together or fail together, so that none waits for one that has given up."""

from collections.abc import Callable
from typing import TypeVar

from dinov2.errors import UserError

from .collectives import all_gather_object, broadcast_object
from .group import get_global_rank, is_main_process

T = TypeVar("T")


class SharedError(RuntimeError):
    """An error of one rank that all ranks raise; unlike the error of a collective, which says that a rank is gone."""


def on_main(action: Callable[[], T]) -> T:
    """What an action returns that the main process alone takes; all ranks call this.

    Raises:
        OSError, UserError: on all ranks, if the action raised it.
        SharedError: on all ranks, if it raised anything else.
    """
    return broadcast_object(on_all(lambda: action() if is_main_process() else None))  # type: ignore[return-value]


def on_all(action: Callable[[], T]) -> T:
    """What an action of every rank returns on this one; all ranks call this.

    Raises:
        OSError, UserError: on all ranks, if the action raised it on one of them.
        SharedError: on all ranks, if it raised anything else.
    """
    result: T | None = None
    failure: Exception | None = None
    try:
        result = action()
    except (OSError, UserError) as error:
        failure = error
    except Exception as error:
        failure = SharedError(f"rank {get_global_rank()}: {error!r}")
        failure.__cause__ = error
    for failed in all_gather_object(failure):
        if failed is not None:
            raise failed
    return result  # type: ignore[return-value]
