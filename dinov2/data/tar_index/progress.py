"""A progress bar on terminals, nothing elsewhere: log files get one line at the end instead."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from tqdm import tqdm

Advance = Callable[[int, int], None]


@contextmanager
def byte_progress(total: int, *, title: str, unit: str = "members", show: bool | None = None) -> Iterator[Advance]:
    """Yield a function that takes the bytes reached and the number of units done; it shows MB/s and the time left.

    Args:
        total: bytes in all.
        title: what is going on.
        unit: what is counted besides bytes.
        show: force the bar on or off; by default it depends on whether stderr is a terminal.
    """
    hidden = not (sys.stderr.isatty() if show is None else show)
    with tqdm(total=total, desc=title, unit="B", unit_scale=True, disable=hidden, dynamic_ncols=True) as bar:

        def advance(reached: int, count: int) -> None:
            if not hidden:
                bar.set_postfix_str(f"{count:,} {unit}", refresh=False)
                bar.update(min(reached, total) - bar.n)

        yield advance
