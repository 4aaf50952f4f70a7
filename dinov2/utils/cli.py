"""Command lines: a user's mistake is a message, a programmer's a traceback, and stopping a command takes one line."""

import argparse
import os
import select
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from types import FrameType
from typing import NoReturn

from dinov2.errors import UserError
from dinov2.utils.atomic import remove_mine
from dinov2.utils.open_files import TOO_MANY, too_many_files
from dinov2.utils.outputs import WRITING_ONLY, output_error

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Run a command and leave the process with what it returns, or with the code of its error.

    A signal that asks it to end does so at once: what is half written goes, one line says why, and the status is
    that of the signal. Commands import what is slow inside `main`, so that this holds meanwhile, too.
    """
    end_cleanly_on_signals()
    try:
        try:
            status = main() or 0
        finally:
            print(end="", flush=True)  # may also fail
        sys.exit(status)
    except UserError as error:
        sys.exit(_show(error))
    except BrokenPipeError:
        if not _reader_is_gone():
            raise
        _end_by(signal.SIGPIPE)  # like any command before `| head`
    except OSError as error:
        if error.errno in TOO_MANY:
            sys.exit(_show(too_many_files()))
        if error.errno not in WRITING_ONLY:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # it may be standard output, which is flushed once more at the end
        sys.exit(_show(output_error(error.filename or "its output", error)))
    finally:
        remove_mine()


def run_checked(
    parser: argparse.ArgumentParser, check: Callable[[argparse.Namespace], object], module: str
) -> NoReturn:
    """Run a command whose arguments are checked before its module is imported: torch alone takes seconds.

    Args:
        check: raises UserError where something is wrong.
        module: with a `main` that takes the arguments.
    """

    def main() -> int | None:
        args = parser.parse_intermixed_args()
        check(args)
        return import_module(module).main(args)  # type: ignore[no-any-return]

    run_command(main)


def end_cleanly_on_signals() -> None:
    """Let Ctrl-C, SIGTERM and SIGHUP end this process without leaving anything half written, or saying much.

    No exception is raised: one that comes while a library is imported, or an object goes, ends as somebody else's
    error or as none. Signals that are ignored, as after nohup, stay so.
    """
    owner = os.getpid()

    def end(number: int, frame: FrameType | None) -> None:
        if os.getpid() == owner:
            remove_mine()
            _say(f"stopped by {signal.Signals(number).name}\n")
        _end_by(signal.Signals(number))

    for number in ENDING:
        if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
            signal.signal(number, end)


def _end_by(number: signal.Signals) -> NoReturn:
    """End as if nobody handled the signal: shells see 128 + number, and a loop of them stops at Ctrl-C."""
    signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # where the first process of a container is spared


def _say(text: str) -> None:
    """Write to standard error, whatever its buffer is in the middle of."""
    try:
        os.write(2, (b"\n" if os.isatty(2) else b"") + text.encode())
    except OSError:
        return


def _reader_is_gone() -> bool:
    """Whether nobody reads standard output or errors any more."""
    poll = select.poll()
    for descriptor in (1, 2):
        poll.register(descriptor, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def _show(error: UserError) -> int:
    # A loader's worker process wraps the message of an error in its own traceback.
    text = str(error)
    marker = f"{type(error).__name__}: "
    if text.startswith("Caught ") and marker in text:
        text = text.rsplit(marker, 1)[1].strip()
    print(end="", flush=True)
    sys.stderr.write(f"error: {text}\n")
    return error.exit_code
