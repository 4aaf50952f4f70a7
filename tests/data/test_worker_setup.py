"""A loader's worker: one thread, garbage collected, deaf to signals but for its parent's."""

import gc
import os
import signal

import pytest
import torch
from forks import is_running, wait_until
from torch.utils.data import DataLoader, Dataset, TensorDataset

from dinov2.data.worker_setup import WorkerSetup, start_workers
from dinov2.utils.signals import STOP_SIGNALS


class AboutTheWorker(Dataset):
    """Samples (process, whether garbage is collected, number of threads)."""

    def __len__(self) -> int:
        return 1000

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor([os.getpid(), gc.isenabled(), torch.get_num_threads()])


@pytest.fixture
def batches():
    gc.disable()  # as a training does
    torch.set_num_threads(2)
    try:
        yield start_workers(DataLoader(AboutTheWorker(), num_workers=1, worker_init_fn=WorkerSetup(1)))
    finally:
        gc.enable()
        torch.set_num_threads(1)


def test_settings_of_a_worker(batches):
    ((process, collects, threads),) = next(batches).tolist()
    assert (process != os.getpid(), collects, threads) == (True, 1, 1)


@pytest.mark.parametrize("method", ["forkserver", pytest.param("spawn", marks=pytest.mark.thorough)])  # 3 s each
def test_workers_that_are_not_forked(method):
    """Python 3.14 starts them by a fork server, which is then their parent process."""
    options = {"num_workers": 1, "multiprocessing_context": method, "worker_init_fn": WorkerSetup(1)}
    loader = DataLoader(TensorDataset(torch.arange(3)), **options)
    assert [batch.tolist() for (batch,) in start_workers(loader)] == [[0], [1], [2]]


def test_only_the_parent_ends_a_worker(batches):
    ((worker, _, _),) = next(batches).tolist()
    stranger = os.fork()
    if stranger == 0:
        for number in STOP_SIGNALS:
            os.kill(worker, number)
        os._exit(0)
    os.waitpid(stranger, 0)
    assert [next(batches)[0, 0].item() for _ in range(20)] == [worker] * 20
    os.kill(worker, signal.SIGTERM)
    wait_until(lambda: not is_running(worker), 10)
