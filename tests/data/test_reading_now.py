"""What a process is reading is visible to its parent, also when it no longer does anything."""

import os
import signal

import pytest
from forks import exit_codes, forked, wait_until

from dinov2.data.reading_now import ReadingBoard, all_readings, reading
from dinov2.train.watchdog import process_state


def test_reads_of_a_stopped_process(tmp_path):
    board = ReadingBoard(3)

    def worker(rank: int) -> None:
        board.occupy(2)
        with reading("ä" * 1000):
            os.kill(os.getpid(), signal.SIGSTOP)

    with forked(worker, logs=tmp_path) as processes:
        (found,) = wait_until(all_readings)
        assert found.process == processes[0].pid
        assert found.description.startswith("äää")
        wait_until(lambda: process_state(processes[0].pid) == "stopped by a signal")
        os.kill(processes[0].pid, signal.SIGCONT)
        assert exit_codes(processes, 20) == [0]
    assert board.readings() == []
    assert process_state(processes[0].pid) == "in an unknown state"


def test_reads_of_this_process():
    assert all_readings() == []
    with pytest.raises(OSError), reading("tile 7"):
        (found,) = all_readings()
        assert str(found).startswith(f"process {os.getpid()} has been reading tile 7 for ")
        raise OSError
    assert all_readings() == []
