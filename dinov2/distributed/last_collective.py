"""Which collective this process began last: what to ask when ranks wait for each other.

Ranks whose numbers differ have parted ways; where the numbers are equal, one of the ranks does not come along.
Gradients are reduced by DistributedDataParallel and are not counted here.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

from torch import Tensor

_number = 0
_name = ""
_begun = 0.0  # monotonic seconds
_running = False


@contextmanager
def recorded(name: str, tensor: Tensor | None = None) -> Iterator[None]:
    """Remember the collective inside the block. Costs about a microsecond."""
    global _number, _name, _begun, _running
    _number, _begun, _running = _number + 1, time.monotonic(), True
    _name = name if tensor is None else f"{name} of {tuple(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
    yield
    _running = False


def progress() -> tuple[int, float | None]:
    """Number of the last collective, and the seconds for which it has waited; None if it is finished."""
    return _number, time.monotonic() - _begun if _running else None


def describe_last_collective() -> str:
    """The last collective in words."""
    if not _number:
        return "no collective yet"
    state = "not finished" if _running else "finished"
    return f"collective number {_number:,}, {_name}, begun {time.monotonic() - _begun:.1f} s ago, {state}"
