"""Short ways to index a tar, to write lists and tables, and to run a script."""

import os
import subprocess
import sys
from pathlib import Path

from dinov2.data.tar_index import IndexReport, IndexRequest, infer_entries, load_entries, load_names

ROOT = Path(__file__).parents[2]


def index(tar: Path, **fields: object) -> IndexReport:
    """Index into the folder of the tar."""
    fields = {key: Path(str(value)) if key in ("keep", "remove", "csv") else value for key, value in fields.items()}
    return infer_entries(IndexRequest(tar, tar.parent, **fields))  # type: ignore[arg-type]


def run(script: str, *args: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own, from another folder and without the package on the path."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, str(ROOT / "scripts" / script), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd or "/", env=environment, check=False)


def write_csv(path: Path, rows: list[str], heading: str = "filename,label") -> Path:
    """A csv file with these rows."""
    path.write_text("\n".join([heading, *rows]) + "\n")
    return path


def write_list(folder: Path, *names: str) -> Path:
    """keep.txt with these names."""
    path = folder / "keep.txt"
    path.write_text("\n".join(names) + "\n")
    return path


def tiles_of(folder: Path, entries: str = "entries.npy") -> list[str]:
    """Base names of the indexed tiles, in order."""
    names = load_names(folder / "file_indices.npy")
    return [names[int(i)] for i in load_entries(folder / entries)[:, 1]]
