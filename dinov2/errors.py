"""Errors for people: mistakes that a user can mend are shown as a message, without a traceback."""

import difflib
from collections.abc import Iterable
from enum import IntEnum


class ExitCode(IntEnum):
    """What the status of a command says to the scripts and schedulers that start it again."""

    DONE = 0
    FAILED = 1  # an error with a traceback
    MISTAKE = 2  # in the command, the configuration or the data; the message says what to do
    INTERRUPTED = 75  # asked to stop, and everything is saved: EX_TEMPFAIL of sysexits.h, "try again later"
    HUNG = 76  # a step, a batch, an evaluation or a checkpoint took too long; the log has the stacks
    LOST_RANK = 77  # another process of the run ended or does not answer; its own log says why


class UserError(ValueError):
    """A mistake in a command, a configuration or a data set; its message says what to do."""

    exit_code = ExitCode.MISTAKE  # of the command that it ends


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not known, with the nearest known ones."""
    known = sorted(known)
    nearest = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(nearest)}?" if nearest else f"known: {', '.join(known)}"
    return UserError(f"unknown {kind} {name!r}: {hint}")
