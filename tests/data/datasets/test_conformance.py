"""What every data set in the registry has to do; each is made of the same six pictures."""

import gc
import os
import pickle
import shutil
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_making import MAKERS, Made, picture
from torch.utils.data import DataLoader

from dinov2.data import make_dataset
from dinov2.data.datasets import DATASETS, HDF5Dataset, TileDataset, TileReadError
from dinov2.errors import UserError

every_dataset = pytest.mark.parametrize("name", list(DATASETS))
MARK = 12_345  # a file position that no read leaves behind


@pytest.fixture
def made(name: str, tmp_path: Path) -> Made:
    """A data set in a folder whose name has what data set strings are made of."""
    folder = tmp_path / "it's a=b: c"
    folder.mkdir()
    return MAKERS[name](folder)


def open_files() -> dict[int, str]:
    """Where this process's descriptors lead."""
    found = {}
    for link in Path("/proc/self/fd").iterdir():
        try:
            found[int(link.name)] = str(link.readlink())
        except FileNotFoundError:  # that of this listing
            continue
    return found


def sample(dataset: TileDataset, index: int) -> tuple[list[int], int]:
    image, target = dataset[index]
    return np.asarray(image).ravel().tolist(), int(target)


def test_no_data_set_is_left_out() -> None:
    assert set(MAKERS) == set(DATASETS)


@every_dataset
def test_tiles_and_labels_in_the_documented_order(made: Made) -> None:
    dataset = make_dataset(dataset_str=made.string)
    assert len(dataset) == 6
    targets = dataset.get_targets()
    assert (targets.dtype, targets.tolist()) == (np.int64, made.targets)
    for index in range(6):
        image, target = dataset[index]
        assert image.mode == dataset.get_image(index).mode == "RGB"
        assert np.array_equal(np.asarray(image), picture(made.tiles[index]))
        assert target == dataset.get_target(index) == targets[index]
        assert isinstance(target, int)
        assert isinstance(dataset.get_image_data(index), bytes)


@every_dataset
def test_opened_again_it_is_the_same(made: Made) -> None:
    first, second = (make_dataset(dataset_str=made.string) for _ in range(2))
    assert [first.get_image_data(i) for i in range(6)] == [second.get_image_data(i) for i in range(6)]
    assert [first.locate(i) for i in range(6)] == [second.locate(i) for i in range(6)]


@every_dataset
def test_the_digest_tells_tiles_from_others(made: Made) -> None:
    dataset = make_dataset(dataset_str=made.string)
    digest = dataset.digest()
    assert len(digest) == 64
    assert make_dataset(dataset_str=made.string).digest() == digest
    file = Path(dataset.locate(5).archive)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    assert dataset.digest() != digest


@every_dataset
def test_a_copy_in_another_place_has_the_same_order(made: Made, tmp_path: Path) -> None:
    dataset = make_dataset(dataset_str=made.string)
    copied = shutil.copytree(tmp_path / "it's a=b: c", tmp_path / "copy", copy_function=shutil.copyfile)
    copy = make_dataset(dataset_str=made.string.replace("it's a=b: c", "copy"))
    assert (copy.order_digest(), copy.checksums_digest()) == (dataset.order_digest(), dataset.checksums_digest())
    file = copied / Path(copy.locate(5).archive).relative_to(copied)
    file.write_bytes(file.read_bytes() + bytes(512))
    assert (copy.order_digest() == dataset.order_digest()) == (type(copy) is HDF5Dataset)  # whose tiles are the same


@every_dataset
def test_no_file_is_open_before_the_first_read(made: Made) -> None:
    gc.collect()  # handles of other tests that wait for it
    before = open_files()
    dataset = make_dataset(dataset_str=made.string)
    assert len(dataset) == 6
    assert open_files() == before


@every_dataset
def test_small_pickles_before_and_after_reading(made: Made) -> None:
    dataset = make_dataset(dataset_str=made.string)
    sizes = []
    for _ in range(2):
        dumped = pickle.dumps(dataset)
        copy = pickle.loads(dumped)
        assert [sample(copy, i) for i in range(6)] == [sample(dataset, i) for i in range(6)]
        sizes.append(len(dumped))
    assert sizes[0] < 5_000
    assert sizes[1] < sizes[0] + 50


@every_dataset
def test_transforms_and_limit_of_pixels(made: Made) -> None:
    dataset = make_dataset(
        dataset_str=made.string, transform=lambda image: image.size, target_transform=lambda label: label + 10
    )
    assert [dataset[i] for i in (0, 5)] == [((16, 16), made.targets[i] + 10) for i in (0, 5)]
    with pytest.raises(UserError, match="data.max_pixels allows"):
        make_dataset(dataset_str=made.string, max_pixels=255)[0]


@every_dataset
def test_indices_outside_are_refused(made: Made) -> None:
    dataset = make_dataset(dataset_str=made.string)
    for index in (-1, 6):
        for read in (dataset.__getitem__, dataset.get_image_data, dataset.get_image, dataset.locate):
            with pytest.raises(IndexError):
                read(index)
    assert len(list(dataset)) == 6  # iteration ends there


@every_dataset
def test_a_bad_tile_says_where_it_is_and_leaves_the_others(made: Made) -> None:
    dataset = make_dataset(dataset_str=made.string)
    made.damage()
    with pytest.raises(TileReadError) as caught:
        dataset[0]
    assert caught.value.place == dataset.locate(0)
    assert caught.value.reason in str(caught.value)
    assert Path(caught.value.place.archive).is_file()
    assert str(caught.value.place) in str(caught.value)
    assert np.array_equal(np.asarray(dataset[5][0]), picture(made.tiles[5]))
    copy = pickle.loads(pickle.dumps(caught.value))  # on its way from a worker
    assert (copy.place, copy.reason) == (caught.value.place, caught.value.reason)


@every_dataset
def test_missing_files(made: Made) -> None:
    made.needed.rename(made.needed.with_name("gone"))
    with pytest.raises(UserError, match=f"{made.needed.name} .*does not exist"):
        make_dataset(dataset_str=made.string)


@every_dataset
def test_a_forked_process_reads_through_handles_of_its_own(made: Made) -> None:
    dataset = make_dataset(dataset_str=made.string)
    before = set(open_files().values())
    sample(dataset, 0)
    mine = descriptors_of_data(before)
    for descriptor in mine:
        os.lseek(descriptor, MARK, os.SEEK_SET)  # a handle that is shared has the same position everywhere
    receiver, sender = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=read_in_child, args=(dataset, before, sender), daemon=True)
    process.start()
    try:
        assert receiver.poll(60)
        read, positions = receiver.recv()
    finally:
        process.kill()
        process.join()
    assert read == [sample(dataset, index) for index in range(6)]
    assert bool(positions) == bool(mine)
    assert not mine or any(position != MARK for position in positions)


def read_in_child(dataset: TileDataset, before: set[str], sender: Any) -> None:
    read = [sample(dataset, index) for index in range(6)]
    sender.send((read, [os.lseek(descriptor, 0, os.SEEK_CUR) for descriptor in descriptors_of_data(before)]))


def descriptors_of_data(before: set[str]) -> list[int]:
    """Those of images and archives; a memory map of an .npy file has no position and may be shared."""
    found = open_files().items()
    return [descriptor for descriptor, path in found if path not in before and path.endswith((".png", ".tar", ".h5"))]


@pytest.fixture(scope="module")
def read_by_workers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[Any]]]:
    """Samples of all data sets, joined so that workers are started once, by start method and data set."""
    made = {name: make(tmp_path_factory.mktemp(name)) for name, make in MAKERS.items()}
    joined = make_dataset(dataset_str=[part.string for part in made.values()], transform=np.array)
    read: dict[str, dict[str, list[Any]]] = {}
    for method in ("none", "fork", "spawn"):
        samples = list(load(joined, method))
        read[method] = {name: samples[6 * place : 6 * place + 6] for place, name in enumerate(made)}
    return read


def load(dataset: TileDataset, method: str) -> Iterator[tuple[list[int], int]]:
    workers = {} if method == "none" else {"num_workers": 2, "multiprocessing_context": method, "timeout": 120}
    for pixels, target in DataLoader(dataset, batch_size=None, **workers):
        yield pixels.ravel().tolist(), int(target)


@every_dataset
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_give_the_same(name: str, method: str, read_by_workers: dict[str, dict[str, list[Any]]]) -> None:
    assert len(read_by_workers[method][name]) == 6
    assert read_by_workers[method][name] == read_by_workers["none"][name]
