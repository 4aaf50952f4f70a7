"""Points where tests make a process fail on purpose.

`fault_point("save.before_rename")` does nothing unless the environment variable DINOV2_FAULTS names the point:

    DINOV2_FAULTS="save.before_rename=kill@2, shard.half_written=ENOSPC@1+"

A plan is a list of `point=action[@occurrence]`. Actions: `kill` (SIGKILL), `stop` (SIGSTOP), `delay:SECONDS`, or the
name of an errno, which is raised as OSError. `@2` is the second time the process passes the point, `@2+` every time
from the second on; without it, the first. The plan is read when the first point is passed; without one a point costs
a look into an empty dictionary.
"""

import errno
import os
import re
import signal
import time
from dataclasses import dataclass

from dinov2.errors import UserError, unknown_name

VARIABLE = "DINOV2_FAULTS"

# Every point of the code, in the order in which a save passes them; a test compares the list with the code.
FAULT_POINTS = (
    "save.begin",  # main process, before anything is written
    "save.after_mkdir",
    "shard.before_open",  # each rank's own file
    "shard.half_written",
    "file.before_fsync",  # every file: tensors, values, manifest
    "shard.written",
    "values.written",  # main process: what is no tensor
    "save.before_agreement",  # each rank, before the ranks tell each other how it went
    "save.before_manifest",  # main process, from here on
    "save.before_folder_fsync",
    "save.before_rename",
    "save.after_rename",
    "save.after_parent_fsync",
    "retention.before_rename",
    "retention.before_removal",
    "retention.done",
)

_RULE = re.compile(r"(?P<point>[\w.]+)=(?P<action>\w+)(?::(?P<seconds>[\d.]+))?(?:@(?P<first>\d+)(?P<on>\+)?)?")


@dataclass
class _Fault:
    """What happens at a point, and when."""

    action: str
    seconds: float
    first: int
    goes_on: bool
    passed: int = 0

    def pass_by(self, point: str) -> None:
        self.passed += 1
        if self.passed == self.first or (self.goes_on and self.passed > self.first):
            self._happen(point)

    def _happen(self, point: str) -> None:
        if self.action == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        elif self.action == "stop":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif self.action == "delay":
            time.sleep(self.seconds)
        else:
            number = getattr(errno, self.action)
            raise OSError(number, f"{os.strerror(number)} (made on purpose at {point})")


_plan: dict[str, _Fault] | None = None  # None: not read yet


def fault_point(name: str) -> None:
    """Fail here if the plan says so."""
    plan = _plan if _plan is not None else read_plan()
    if name in plan:
        plan[name].pass_by(name)


def read_plan() -> dict[str, _Fault]:
    """Read the plan from the environment, anew if it was read before.

    Raises:
        UserError: if it cannot be understood.
    """
    global _plan
    _plan = parse_plan(os.environ.get(VARIABLE, ""))
    return _plan


def parse_plan(text: str) -> dict[str, _Fault]:
    """A plan by point.

    Raises:
        UserError: for a point or an action that there is not.
    """
    plan = {}
    for rule in filter(None, (part.strip() for part in text.split(","))):
        match = _RULE.fullmatch(rule)
        if match is None:
            raise UserError(f"{VARIABLE}: {rule!r} is not understood, expected point=action[@occurrence]")
        point, action = match["point"], match["action"]
        if point not in FAULT_POINTS:
            raise unknown_name(f"point in {VARIABLE}", point, FAULT_POINTS)
        if action not in ("kill", "stop", "delay") and action not in errno.errorcode.values():
            raise unknown_name(f"action in {VARIABLE}", action, ("kill", "stop", "delay", "ENOSPC", "EIO", "EROFS"))
        plan[point] = _Fault(action, float(match["seconds"] or 0), int(match["first"] or 1), bool(match["on"]))
    return plan
