"""Command lines: a user's mistake is a message, a programmer's a traceback, and stopping a command takes one line."""

import argparse
import difflib
import errno
import os
import select
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from dinov2.errors import UserError
from dinov2.utils.atomic import remove_mine
from dinov2.utils.open_files import TOO_MANY, too_many_files
from dinov2.utils.outputs import WRITING_ONLY, output_error

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Parser(argparse.ArgumentParser):
    """A command line that names the option that was meant, and takes no empty text for a folder."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._given: list[str] = []

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> Any:
        """Refuse empty texts: a variable of the shell that is not set would become the current folder."""
        given = sys.argv[1:] if args is None else list(args)
        self._given += given
        for before, text in zip(["an argument", *given], given):
            if not text or (text.startswith("--") and text.endswith("=")):
                self.error(f"{text or before} has an empty value; is a variable of the shell not set?")
        return super().parse_known_args(given, namespace)

    def error(self, message: str) -> NoReturn:
        """End the command with the usage and the message, and with what to type for options that are not known."""
        known = self._options()
        for text in dict.fromkeys(self._given):
            name = text.partition("=")[0]
            if not name.startswith("--") or name in {"--", *known}:
                continue
            if "." in name and "=" in text:
                message += f"; settings are written without dashes: {text.lstrip('-')}"
            elif nearest := difflib.get_close_matches(name.replace("_", "-"), known, n=1, cutoff=0.6):
                message += f"; did you mean {nearest[0]} by {name}?"
        super().error(message)

    def _options(self) -> set[str]:
        """All options, also those of subcommands."""
        choices = [action.choices for action in self._actions if isinstance(action, argparse._SubParsersAction)]
        return set(self._option_string_actions).union(*(one._options() for some in choices for one in some.values()))


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
        if error.errno == errno.ENAMETOOLONG:
            sys.exit(_show(UserError(f"{error.filename}: the name is too long. Choose a shorter one.")))
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
