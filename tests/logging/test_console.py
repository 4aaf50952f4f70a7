"""The console among several processes."""

import logging
import multiprocessing
import os
import signal
import threading

from tqdm.std import TqdmDefaultWriteLock, tqdm

from dinov2.logging import setup_logging


def die_while_writing() -> None:
    with tqdm.get_lock():
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_killed_while_it_writes_stops_no_other(tmp_path):
    tqdm.set_lock(TqdmDefaultWriteLock())  # as in a fresh process
    setup_logging()
    writer = multiprocessing.get_context("fork").Process(target=die_while_writing)
    writer.start()
    writer.join(20)
    assert writer.exitcode == -signal.SIGKILL
    line = threading.Thread(target=logging.getLogger("dinov2").info, args=("still here",), daemon=True)
    line.start()
    line.join(20)
    assert not line.is_alive()
