"""The signals by which schedulers, launchers and people ask a job to stop."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager

STOP_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)


@contextmanager
def signals_held() -> Iterator[None]:
    """Keep signals to stop from this thread inside the block; processes forked in it start with them waiting.

    Where there are other threads, one of them may receive a signal to the process.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
