"""Markdown of model cards; what comes from outside cannot change how it is read."""

import re
from collections.abc import Iterable, Sequence
from html import escape


def table(rows: Iterable[Sequence[str]]) -> str:
    """A table in Markdown; the first row is its header."""
    header, *others = rows
    lines = [header, ["---"] * len(header), *others]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def plain(text: str) -> str:
    """Text from outside that stays one cell of a table and has no markup."""
    return re.sub(r"([\\`*_\[\]|#])", r"\\\1", escape(" ".join(text.split()), quote=False))


def code(text: str) -> str:
    """Text from outside as code in one cell of a table."""
    return f"`{' '.join(text.split()).replace('`', chr(39)).replace('|', '/')}`"
