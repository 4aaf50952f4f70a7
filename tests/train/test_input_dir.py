"""Training on what --input-dir names, and again from the configuration that such a run wrote."""

from pathlib import Path

import h5py
import numpy as np
import yaml
from PIL import Image
from runs import SMALL, metrics_of

from dinov2.train.train import get_args_parser, main


def run(output: Path, *arguments: str) -> list[dict]:
    main(get_args_parser().parse_intermixed_args(["--output-dir", str(output), *arguments, "optim.max_iter=2"]))
    return metrics_of(output)


def test_folders_and_files_train_together(image_folder, tmp_path):
    pixels = np.stack([np.asarray(Image.open(path)) for path in sorted(image_folder.rglob("*.jpg"))])
    with h5py.File(tmp_path / "tiles.h5", "w") as file:
        file["tile"] = pixels
    inputs = [image_folder, tmp_path / "tiles.h5"]
    found = run(tmp_path / "run", *(part for path in inputs for part in ("--input-dir", str(path))), *SMALL)
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["train"]["dataset_path"]
    assert written == [f"ImageFolder:root={image_folder}", f"HDF5:file={tmp_path}/tiles.h5"]
    again = run(tmp_path / "again", "--config-file", str(tmp_path / "run" / "config.yaml"))
    assert [line["total_loss"] for line in again] == [line["total_loss"] for line in found]
