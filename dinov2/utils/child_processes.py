"""Processes that work for another one, as those of a pool or a loader: they go when it goes.

Schedulers and terminals send a signal to all processes of a job, and a parent that is killed tells its children
nothing.
"""

import multiprocessing
import os
import signal
import threading
from multiprocessing.process import BaseProcess

PARENT_CHECK = 2.0  # seconds after which a process has noticed that its parent is gone


def follow_parent() -> None:
    """Go on when the whole process group is asked to stop; only the parent process ends this one, and its own end.

    To be called in a process that `multiprocessing` started, by whatever method: one that a fork server started is a
    child of the server, and yet it follows the process that asked for it.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        raise RuntimeError("this process was not started by multiprocessing and has no parent to follow")
    for number in (signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):  # not on macOS, where no scheduler sends anything
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(parent,), name="end-with-parent", daemon=True).start()


def _end_with(parent: BaseProcess) -> None:
    """End this process when its parent says so, or is gone; also while the main thread is stuck in a read."""
    is_child = os.getppid() == parent.pid  # else that of a fork server
    # A sibling that was forked later and is stopped keeps the pipe open by which `is_alive` knows.
    while parent.is_alive() and (not is_child or os.getppid() == parent.pid):
        if not hasattr(signal, "sigtimedwait"):
            parent.join(PARENT_CHECK)
        elif (received := signal.sigtimedwait({signal.SIGTERM}, PARENT_CHECK)) and received.si_pid == parent.pid:
            break
    os._exit(0)
