"""Errors of the tar index, and how names from an archive are shown in them.

Member names come from strangers: they may hold newlines, terminal escape codes or 100 KB of text. `show_name`
keeps every message on one short line.
"""

from collections.abc import Sequence
from pathlib import Path

from dinov2.errors import UserError

SHOWN_NAME_LENGTH = 120
SHOWN_NAMES = 5


class ArchiveError(UserError):
    """A tar file that cannot be indexed completely, and is therefore refused."""


class SideFileError(UserError):
    """A `.npy` or `.json` file beside the archive that is damaged or not of the documented form."""


class StaleIndexError(SideFileError):
    """A side file that was made for another state of the archive."""


class SelectionError(UserError):
    """A keep or remove list that cannot be applied."""


class LabelError(UserError):
    """A label table that does not give every selected tile exactly one label."""


class GroupError(UserError):
    """A rule that does not tell of every tile which group it belongs to."""


def show_name(name: str | bytes | Path) -> str:
    """`name` in double quotes, on one line, without control characters, at most 120 characters long."""
    text = name.decode("utf-8", "surrogateescape") if isinstance(name, bytes) else str(name)
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text[: SHOWN_NAME_LENGTH + 1]
    )
    cut = shown if len(shown) <= SHOWN_NAME_LENGTH else shown[: SHOWN_NAME_LENGTH - 3] + "..."
    return f'"{cut}"'


def show_names(names: Sequence[str | bytes], *, total: int | None = None) -> str:
    """The first few names, and how many more there are of `total` (default: all given)."""
    total = len(names) if total is None else total
    listed = ", ".join(show_name(name) for name in names[:SHOWN_NAMES])
    more = total - min(len(names), SHOWN_NAMES)
    return f"{listed} and {more:,} more" if more > 0 else listed
