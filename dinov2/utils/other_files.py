"""Files of this field that hold no tiles in a form that is read: what they are, and what to type instead."""

from dataclasses import dataclass
from itertools import islice
from pathlib import Path

LISTED = 10_000  # files of a folder that are looked at
LARGEST_IMAGE = 50_000_000  # bytes; a TIFF that has more is a slide


@dataclass(frozen=True)
class Kind:
    """Files with some endings.

    Attributes:
        advice: may name the file as {path}.
    """

    endings: tuple[str, ...]
    what: str
    advice: str


_INDEX = (
    "Index it, under the name that training looks for (a link will do), with `python scripts/infer_entries.py "
    "--tarball_path DIR/pretrain_dataset.tar --output_root DIR --name pretrain`, and give "
    "train.dataset_path=Pathology:root=DIR:extra=DIR instead of --input-dir"
)
_SLIDE = Kind(
    (".svs", ".ndpi", ".mrxs", "slidedat.ini", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi", ".isyntax")
    + (".qptiff", ".zvi", ".dcm", ".vsi", ".dzi", ".ome.tif", ".ome.tiff"),
    "a whole slide",
    "Training reads tiles. Cut them from the slide first, as images of 256 or 512 px at one magnification (QuPath, "
    "histolab, tiatoolbox), and give the folder with them; coordinates alone, as CLAM and TRIDENT list them, are not "
    "enough",
)
_KINDS = (
    _SLIDE,
    Kind((".tar",), "a tar, also if it is a WebDataset shard", _INDEX),
    Kind(
        (".gz", ".tgz", ".bz2", ".xz", ".txz", ".zst", ".lz4"),
        "compressed",
        "Tiles are read in any order, so it has to be decompressed (gunzip, unxz, unzstd). " + _INDEX,
    ),
    Kind(
        (".zip", ".7z", ".rar"), "an archive", "Unpack it (unzip {path} -d tiles), and give the folder with the tiles"
    ),
    Kind(
        (".parquet", ".arrow"),
        "a table, as Hugging Face's data sets are",
        "Write its images into a folder, for example by row['image'].save(...) for each row of "
        "datasets.load_dataset('parquet', data_files='{path}', split='train'), and give that folder",
    ),
    Kind(
        (".npz", ".npy"),
        "an array of NumPy",
        "If it has RGB tiles (n, H, W, 3) of uint8, store them as HDF5 with h5py.File('tiles.h5', 'w').create_dataset("
        "'tile', data=array, chunks=(1, H, W, 3)), and give --input-dir tiles.h5; features have no pixels to train on",
    ),
    Kind(
        (".pt", ".pth", ".ckpt", ".safetensors", ".bin"),
        "a file of PyTorch, with weights or features",
        "Weights to start from go to --pretrained-weights. Features, as CLAM keeps in pt_files, have no pixels to "
        "train on: give the tiles that they were made of",
    ),
    Kind((".tfrecord", ".tfrecords", ".lmdb", ".mdb"), "a data base", "Write its images into a folder, and give that"),
    Kind(
        (".txt", ".tsv", ".xlsx", ".json", ".jsonl", ".geojson", ".xml"),
        "a list, or annotations",
        "A list of images is read as .csv: a first row with the names of the columns, then a path in each row",
    ),
    Kind(
        (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp"), "a single image", "Give the folder that it is in"
    ),
    Kind(
        (".jp2", ".j2k", ".jxl", ".avif", ".heic", ".gif", ".ppm", ".pnm"),
        "an image of a kind that is not read",
        "Convert such images to .png, which loses nothing, and give the folder with them",
    ),
    Kind(
        (".h5", ".hdf5"),
        "HDF5",
        "If it has tiles, give the file itself: --input-dir {path}. Coordinates and features, as CLAM and TRIDENT keep "
        "in such files, have no pixels to train on: give the tiles themselves",
    ),
    Kind((".csv",), "a list", "If it lists images, give the file itself: --input-dir {path}"),
)


def explain_file(path: str | Path) -> str:
    """What a file is that was given for tiles, and what to do."""
    kind = _kind(Path(path).name)
    if Path(path).suffix.lower() in (".tif", ".tiff") and Path(path).stat().st_size > LARGEST_IMAGE:
        kind = _SLIDE
    if kind is None:
        return f"{path} is no folder. Give a folder of images, an .h5 file of tiles, or a .csv list of images"
    return f"{path} is {kind.what}. {kind.advice.format(path=path)}."


def explain_folder(folder: Path) -> str:
    """What a folder without images has instead, and what to do; nothing where that is not known."""
    found: dict[Kind, list[Path]] = {}
    for path in sorted(islice((path for path in folder.rglob("*") if path.is_file()), LISTED)):
        if kind := _kind(path.name):
            found.setdefault(kind, []).append(path)
    if not found:
        return ""
    kind = max(found, key=lambda one: len(found[one]))
    path = found[kind][0]
    such = f"{path.relative_to(folder)}, one of {len(found[kind]):,} such files"
    return f" It has {such}, which is {kind.what}. {kind.advice.format(path=path)}."


def _kind(name: str) -> Kind | None:
    """The kind with the longest ending that fits, which .ome.tif is beside .tif."""
    by_ending = {ending: kind for kind in _KINDS for ending in kind.endings}
    fitting = [ending for ending in by_ending if name.lower().endswith(ending)]
    return by_ending[max(fitting, key=len)] if fitting else None
