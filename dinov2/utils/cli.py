"""Command lines that show a user's mistake as a message and a programmer's as a traceback."""

import sys
from collections.abc import Callable

from dinov2.errors import UserError


def run_command(main: Callable[[], int | None]) -> None:
    """Run a command and leave the process with what it returns, or with the code of its error."""
    try:
        sys.exit(main() or 0)
    except UserError as error:
        sys.exit(_show(error))
    except KeyboardInterrupt:
        sys.exit("interrupted")


def _show(error: UserError) -> int:
    # A loader's worker process wraps the message of an error in its own traceback.
    text = str(error)
    marker = f"{type(error).__name__}: "
    if text.startswith("Caught ") and marker in text:
        text = text.rsplit(marker, 1)[1].strip()
    sys.stdout.flush()
    sys.stderr.write(f"error: {text}\n")
    return error.exit_code
