"""Progress: a bar on terminals; in log files a line every half minute."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

LINE_EVERY = 30.0  # seconds between lines of a log file

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
    shown = sys.stderr.isatty() if show is None else show
    with _bar(total, title, unit) if shown else nullcontext(_lines(total, title, unit)) as advance:
        yield advance


@contextmanager
def _bar(total: int, title: str, unit: str) -> Iterator[Advance]:
    from tqdm import tqdm  # takes as long to import as a small tar to index

    with tqdm(total=total, desc=title, unit="B", unit_scale=True, dynamic_ncols=True) as bar:

        def advance(reached: int, count: int) -> None:
            bar.set_postfix_str(f"{count:,} {unit}", refresh=False)
            bar.update(min(reached, total) - bar.n)

        yield advance


def _lines(total: int, title: str, unit: str) -> Advance:
    began = told = time.monotonic()

    def advance(reached: int, count: int) -> None:
        nonlocal told
        if (now := time.monotonic()) - told >= LINE_EVERY:
            from tqdm import tqdm

            told, done = now, min(reached, total)
            line = tqdm.format_meter(done, total, now - began, prefix=title, ascii=True, unit="B", unit_scale=True)
            sys.stderr.write(f"{line} {count:,} {unit}\n")

    return advance
