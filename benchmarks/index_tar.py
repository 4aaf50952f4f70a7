"""How fast a tar is indexed, and in how much memory, against Python's `tarfile.getmembers()` in the same run.

Makes a tar of small members and a csv with a row for each, then runs, each in a process of its own:
`getmembers()` (the recipe of clemsgrs/dinov2 before it builds its index), `infer_entries`, and
`infer_entries` with the csv.

    python benchmarks/index_tar.py --members 1000000
    python benchmarks/index_tar.py --members 10000000 --no-tarfile
"""

import argparse
import json
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

CHUNK = 1 << 14
DIGITS = 9
CLASSES = 7


def main() -> None:
    """Make the data, run the recipes, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--tile_bytes", type=int, default=400, help="data bytes of each member")
    parser.add_argument(
        "--format", choices=("gnu", "pax"), default="gnu", help="pax: an extended header before every member"
    )
    parser.add_argument("--folder", type=Path, help="where to put the tar (default: a temporary folder)")
    parser.add_argument(
        "--no-tarfile", action="store_true", help="leave getmembers() out: it needs 500 bytes of memory a member"
    )
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        run_child(args.child[0], Path(args.child[1]))
        return
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        make_tar(Path(folder) / "tiles.tar", members=args.members, tile_bytes=args.tile_bytes, pax=args.format == "pax")
        make_csv(Path(folder) / "labels.csv", members=args.members)
        recipes = [recipe for recipe in RECIPES if not (args.no_tarfile and recipe == "tarfile.getmembers")]
        report({recipe: in_child(recipe, Path(folder)) for recipe in recipes}, args.members)


def report(results: dict[str, tuple[float, int]], members: int) -> None:
    """Print members per second, ratio to tarfile and peak memory of each recipe."""
    reference = results.get("tarfile.getmembers", (float("nan"), 0))[0]
    print(f"{members:,} members")
    print(f"{'recipe':24} {'seconds':>9} {'members/s':>12} {'ratio':>7} {'peak MB':>9}")
    for recipe, (seconds, peak) in results.items():
        print(f"{recipe:24} {seconds:9.2f} {members / seconds:12,.0f} {reference / seconds:7.1f} {peak / 1e6:9.1f}")


def in_child(recipe: str, folder: Path) -> tuple[float, int]:
    """Seconds and peak resident bytes of one recipe in a fresh process."""
    done = subprocess.run(
        [sys.executable, __file__, "--child", recipe, str(folder)], check=True, capture_output=True, text=True
    )
    result = json.loads(done.stdout.splitlines()[-1])
    return result["seconds"], result["peak"]


def run_child(recipe: str, folder: Path) -> None:
    """Run a recipe and print what it took."""
    prepared = RECIPES[recipe](folder)
    began = time.perf_counter()
    prepared()
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    peak = int(status.split("VmHWM:")[1].split()[0]) * 1024
    print(json.dumps({"seconds": seconds, "peak": peak}))


def with_tarfile(folder: Path) -> Callable[[], object]:
    """The baseline."""
    return lambda: tarfile.open(folder / "tiles.tar").getmembers()


def with_infer_entries(folder: Path, *, csv: bool = False) -> Callable[[], object]:
    """The whole of scripts/infer_entries.py but its imports."""
    from dinov2.data.tar_index import IndexRequest, infer_entries

    return lambda: infer_entries(
        IndexRequest(folder / "tiles.tar", folder, name="pretrain", csv=folder / "labels.csv" if csv else None)
    )


RECIPES: dict[str, Callable[[Path], Callable[[], object]]] = {
    "tarfile.getmembers": with_tarfile,
    "infer_entries": with_infer_entries,
    "infer_entries --csv": lambda folder: with_infer_entries(folder, csv=True),
}


def make_tar(path: Path, *, members: int, tile_bytes: int, pax: bool) -> None:
    """A tar of equally sized members with distinct names, 16,384 at a time."""
    info = tarfile.TarInfo(f"tiles/slide_0001/tile_{0:0{DIGITS}d}.jpg")
    info.size, info.mtime = tile_bytes, 1_700_000_000.25 if pax else 1_700_000_000
    header = info.tobuf(tarfile.PAX_FORMAT if pax else tarfile.GNU_FORMAT)
    template = np.frombuffer(header + bytes(-(-tile_bytes // 512) * 512), np.uint8)
    with path.open("wb") as file:
        for first in range(0, members, CHUNK):
            numbers = np.arange(first, min(first + CHUNK, members))
            file.write(_numbered(np.tile(template, (len(numbers), 1)), numbers, at=len(header) - 512))
        file.write(bytes(1024))


def _numbered(rows: NDArray[np.uint8], numbers: NDArray[np.int64], *, at: int) -> bytes:
    """Members with their number in the name and the checksum renewed.

    Args:
        rows: (n, member bytes) uint8.
        numbers: (n,).
        at: where the header with the name begins in a row.
    """
    name = at + len("tiles/slide_0001/tile_")
    for digit in range(DIGITS):
        rows[:, name + DIGITS - 1 - digit] = ord("0") + numbers // 10**digit % 10
    rows[:, at + 148 : at + 156] = ord(" ")
    sums = rows[:, at : at + 512].sum(axis=1, dtype=np.int64)
    for digit in range(6):
        rows[:, at + 153 - digit] = ord("0") + (sums >> (3 * digit)) % 8
    rows[:, at + 154] = 0
    return rows.tobytes()


def make_csv(path: Path, *, members: int) -> None:
    """A label for every member, in another order than the archive's."""
    order = np.random.default_rng(0).permutation(members)
    with path.open("w") as file:
        file.write("filename,label\n")
        for first in range(0, members, CHUNK):
            file.writelines(f"tile_{i:0{DIGITS}d}.jpg,{i % CLASSES}\n" for i in order[first : first + CHUNK].tolist())


if __name__ == "__main__":
    main()
