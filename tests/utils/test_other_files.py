"""Files of the field given where tiles are expected: what they are, and what to type."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from dinov2.data import make_dataset
from dinov2.errors import UserError
from dinov2.run.tile_sets import tiles_of_folder
from dinov2.train.arguments import check_arguments, get_args_parser

GIVEN = {
    "TCGA-AA-0001.svs": "is a whole slide.*Cut them from the slide",
    "slide.NDPI": "is a whole slide",
    "case.ome.tif": "is a whole slide",
    "shard-000001.tar": "is a tar, also if it is a WebDataset shard.*infer_entries.py",
    "tiles.tar.gz": "is compressed.*infer_entries.py",
    "train-00000.parquet": "is a table, as Hugging Face's.*load_dataset",
    "images.npz": "is an array of NumPy.*h5py",
    "slide.pt": "is a file of PyTorch.*--pretrained-weights",
    "tiles.zip": r"is an archive.*unzip .*tiles\.zip",
    "list.txt": r"is a list.*\.csv",
    "slide.vsi": "is a whole slide",
    "tile.jp2": "is an image of a kind that is not read. Convert",
    "tile.png": "is a single image. Give the folder",
    "what.ever": "is no folder. Give a folder of images",
}


@pytest.mark.parametrize("name", GIVEN)
def test_a_file_that_is_no_folder(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(UserError, match=f"^--input-dir {tmp_path}/{name} {GIVEN[name]}"):
        check_arguments(get_args_parser().parse_args(["--input-dir", str(tmp_path / name)]))
    with pytest.raises(UserError, match=GIVEN[name]):
        make_dataset(dataset_str=f"ImageFolder:root={tmp_path / name}")


def test_a_large_tiff_is_a_slide(tmp_path: Path) -> None:
    with (tmp_path / "tumor_001.tif").open("wb") as file:
        file.truncate(60_000_000)
    with pytest.raises(UserError, match="is a whole slide"):
        check_arguments(get_args_parser().parse_args(["--input-dir", str(tmp_path / "tumor_001.tif")]))


@pytest.mark.parametrize(
    "names",
    [["a.svs", "b.svs", "list.csv"], ["x/shard-0.tar", "x/shard-1.tar"], ["m/Slidedat.ini"], ["x/a.h5", "x/b.h5"]],
)
def test_a_folder_of_other_files(names: list[str], tmp_path: Path) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    kinds = {".tar": "a tar", ".h5": "HDF5. If it has tiles, .* CLAM and TRIDENT"}
    what = kinds.get(Path(names[0]).suffix, "a whole slide")
    with pytest.raises(UserError, match=f"holds no images.*It has {names[0]}.*which is {what}"):
        make_dataset(dataset_str=f"ImageFolder:root={tmp_path}")
    with pytest.raises(UserError, match=f"no images in this folder. It has {names[0]}"):
        tiles_of_folder(tmp_path, seed=0)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"coords": np.zeros((5, 2), np.int64)}, r"coords \(5, 2\) int64: coordinates of tiles, as CLAM and TRIDENT"),
        ({"features": np.zeros((5, 8), np.float32), "coords": np.zeros((5, 2))}, "features of an encoder"),
        ({"feats": np.zeros((1, 5, 8), np.float16)}, "features of an encoder"),
        ({"imgs": np.zeros((5, 8, 8, 3), np.uint8), "coords": np.zeros((5, 2))}, "HDF5:file=.*a.h5:key=imgs"),
        ({"deep/x": np.zeros((5, 8, 8, 3), np.uint8)}, "HDF5:file=.*a.h5:key=deep/x"),
        ({"tiles": np.zeros(3)}, "did you mean tiles"),
    ],
)
def test_hdf5_without_tiles(arrays: dict[str, np.ndarray], message: str, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    with pytest.raises(UserError, match=message):
        make_dataset(dataset_str=f"HDF5:file={tmp_path / 'a.h5'}")
