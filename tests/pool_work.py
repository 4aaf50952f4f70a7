"""What the tests of pools have done in processes; these import nothing else."""

import os
import time
from pathlib import Path

from dinov2.errors import UserError


def double(number: int) -> int:
    return 2 * number


def fail_at_seven(number: int) -> int:
    if number == 7:
        raise UserError("seven")
    return number


def die(number: int) -> None:
    os._exit(1)


def wait(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    time.sleep(120)
