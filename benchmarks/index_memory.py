"""What a loader's worker holds in memory over a large index: made, of 100 million rows by default.

    python benchmarks/index_memory.py [--rows N] [--reads N]

A fresh process opens the data set as a training does and reads random tiles; printed are its resident and its anonymous
memory beyond those of a process that does the same with an index of a thousand rows.
"""

import argparse
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import numpy as np

CHUNK = 1 << 20
SMALL = 1_000

WORKER = """
import pickle, sys
from pathlib import Path
from dinov2.data import make_dataset
from dinov2.data.permutation import Permutation
import numpy as np

folder, reads = sys.argv[1], int(sys.argv[2])
dataset = pickle.loads(pickle.dumps(make_dataset(dataset_str=f"Pathology:root={folder}:extra={folder}")))
for index in Permutation(len(dataset), 0)(np.arange(min(reads, len(dataset)))).tolist():
    dataset[index]
lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]
sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
print(sizes["Rss"], sizes["Anonymous"])
"""


def make_index(folder: Path, rows: int) -> None:
    """A tar of one tile, and an index that names it `rows` times."""
    from PIL import Image

    folder.mkdir()
    Image.new("RGB", (32, 32), "plum").save(folder / "tile.png")
    with tarfile.open(folder / "pretrain_dataset.tar", "w", format=tarfile.GNU_FORMAT) as tar:
        tar.add(folder / "tile.png", "tile.png")
    size = (folder / "tile.png").stat().st_size
    entries = np.lib.format.open_memmap(folder / "pretrain_entries.npy", "w+", "<u8", (rows, 4))
    for first in range(0, rows, CHUNK):
        entries[first : first + CHUNK] = (0, 0, 512, 512 + size)
    entries.flush()


def memory(folder: Path, reads: int) -> tuple[float, float]:
    """Resident and anonymous MiB of a process that has read tiles."""
    command = [sys.executable, "-c", WORKER, str(folder), str(reads)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    if done.returncode:
        raise SystemExit(done.stderr)
    resident, anonymous = (int(number) / 1024 for number in done.stdout.split())
    return resident, anonymous


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000_000)
    parser.add_argument("--reads", type=int, default=50_000)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        figures = {}
        for rows in (SMALL, args.rows):
            make_index(Path(scratch, str(rows)), rows)
            figures[rows] = memory(Path(scratch, str(rows)), args.reads)
    for kind, small, large in zip(("resident", "anonymous"), figures[SMALL], figures[args.rows]):
        print(f"{kind:9} {large:7.1f} MiB with {args.rows:,} rows, {large - small:+.1f} MiB over {SMALL:,} rows")


if __name__ == "__main__":
    main()
