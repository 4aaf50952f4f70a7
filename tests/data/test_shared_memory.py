"""Shared memory that is too small for the batches of loader workers is an error that says what to do, never a hang."""

import re
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from dinov2.data import shared_memory
from dinov2.data.loaders import make_data_loader
from dinov2.data.shared_memory import RoomForBatches, free_shared_memory, tensor_bytes
from dinov2.data.worker_setup import LostWorkerError, explained_worker_losses, start_workers, worker_options
from dinov2.errors import ExitCode, UserError
from dinov2.eval.augmented import augmented_batches
from dinov2.eval.features import Extraction, extract_features

IMAGES = TensorDataset(torch.zeros(8, 3, 4, 4), torch.arange(8))  # 192 + 8 bytes each
CPU = torch.device("cpu")


@pytest.fixture
def small(monkeypatch):
    """Room for three batches of four images."""
    monkeypatch.setattr(shared_memory, "free_shared_memory", lambda: 2400)


def test_bytes_of_a_batch():
    crops, labels = torch.zeros(2, 3, dtype=torch.float16), torch.zeros(5)
    assert tensor_bytes({"crops": [crops, crops], "rest": (labels, "name", 3, None)}) == 2 * 12 + 20
    assert tensor_bytes([]) == tensor_bytes("text") == tensor_bytes(b"bytes") == 0


def passes(workers: int):
    """What starts workers: training, evaluation, evaluation of augmented images."""
    how = Extraction(batch_size=4, num_workers=workers)
    options = {"labels": torch.arange(8), "batch_size": 4, "steps": range(2), "device": CPU, "num_workers": workers}
    return {
        "training": lambda: next(start_workers(make_data_loader(dataset=IMAGES, batch_size=4, num_workers=workers))),
        "evaluation": lambda: extract_features({"mean": lambda x: x.mean((2, 3))}, IMAGES, device=CPU, how=how),
        "augmented": lambda: next(augmented_batches(IMAGES, lambda x: x.mean((2, 3)), **options)),
    }


def raised_by(action: Callable[[], object]) -> Exception | None:
    """The error of an action, without the frames that hold its loader: a loader that is only collected later waits 5
    seconds for each worker."""
    try:
        action()
    except Exception as error:
        return error.with_traceback(None)
    return None


@pytest.mark.parametrize("kind", passes(0))
def test_room_for_all_batches_on_their_way(kind, small):
    error = raised_by(passes(2)[kind])
    assert isinstance(error, UserError)
    assert re.search(r"shared memory.* too small.* 4 batches.*2 of each.*--shm-size.*--ipc=host", str(error))
    passes(1)[kind]()  # 1,600 bytes
    passes(0)[kind]()


def test_all_ranks_of_a_machine_share_it(small, monkeypatch):
    monkeypatch.setattr(shared_memory, "get_local_size", lambda: 4)
    with pytest.raises(UserError, match=r"8 batches .* of 4 process"):
        RoomForBatches(list, 1)([torch.zeros(100)])


def test_a_machine_without_such_a_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "FOLDER", tmp_path / "none")
    assert free_shared_memory() is None
    assert RoomForBatches(list, 2)([1]) == [1]


class Unsendable:
    """A batch that a worker's queue cannot send."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    def __reduce__(self):
        raise RuntimeError(self.reason)


FULL = "unable to allocate shared memory(shm) for file </torch_1_2_3>: Success (0)"


@pytest.mark.parametrize(("reason", "kind"), [(FULL, UserError), ("another fault of this test", RuntimeError)])
def test_what_a_queue_cannot_send_arrives_as_an_error(reason, kind):
    loader = DataLoader(IMAGES, **worker_options(1, lambda samples: Unsendable(reason)))
    error = raised_by(lambda: next(start_workers(loader)))
    assert type(error) is kind
    assert ("shared memory of this machine is full" if kind is UserError else reason) in str(error)


def test_memory_that_is_full_while_a_batch_is_made():
    def collate(samples):
        raise RuntimeError(FULL)

    with pytest.raises(UserError, match=r"is full \(unable to allocate.*MiB are free in /dev/shm.*--shm-size"):
        RoomForBatches(collate, 0)([1])


def killed_by(signal: str) -> str:
    return f"DataLoader worker (pid 7) is killed by signal: {signal}."


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (RuntimeError(killed_by("Bus error")), UserError, ExitCode.MISTAKE),
        (RuntimeError(killed_by("Killed")), LostWorkerError, ExitCode.FAILED),
        (RuntimeError("out of resource: shared memory, Required: 1, Hardware limit: 0"), RuntimeError, None),
        (OSError(28, "No space left on device", "config.yaml"), OSError, None),
    ],
)
def test_the_end_of_a_worker_in_words(error, kind, status):
    with pytest.raises(kind) as found, explained_worker_losses():
        raise error
    assert type(found.value) is kind
    assert getattr(found.value, "exit_code", None) == status


def test_another_error_than_that_of_torch_where_a_worker_died():
    with pytest.raises(LostWorkerError), explained_worker_losses([SimpleNamespace(exitcode=-9)]):
        raise EOFError
    with pytest.raises(EOFError), explained_worker_losses([]):
        raise EOFError
