"""How fast a tar is indexed, and in how much memory, against Python's `tarfile.getmembers()` in the same run.

Makes a tar of small members and a csv with a row for each, then runs, each in a process of its own:
`getmembers()` (the recipe of clemsgrs/dinov2 before it builds its index), `scripts/infer_entries.py`, and the same
with the csv. Times are of whole processes, start-up included, as users wait for them; the best round counts.

    python benchmarks/index_tar.py --members 300000
    python benchmarks/index_tar.py --members 10000000 --no-tarfile --rounds 1
"""

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import time
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "infer_entries.py"

CHUNK = 1 << 14
DIGITS = 9
CLASSES = 7

Cost = tuple[float, float, int]  # wall seconds, processor seconds, peak bytes


def main() -> None:
    """Make the data, run the recipes, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=1_000_000)
    parser.add_argument("--tile_bytes", type=int, default=400, help="data bytes of each member")
    parser.add_argument(
        "--format", choices=("gnu", "pax"), default="gnu", help="pax: an extended header before every member"
    )
    parser.add_argument("--folder", type=Path, help="where to put the tar (default: a temporary folder)")
    parser.add_argument("--rounds", type=int, default=3, help="of all recipes, one after the other")
    parser.add_argument(
        "--no-tarfile", action="store_true", help="leave getmembers() out: it needs 500 bytes of memory a member"
    )
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as name:
        folder = Path(name)
        # In another process: the memory of this one would count as that of those it starts.
        maker = get_context("spawn").Process(target=make, args=(folder, args))
        maker.start()
        maker.join()
        commands = recipes(folder, tarfile_too=not args.no_tarfile)
        rounds = [{recipe: run(command) for recipe, command in commands.items()} for _ in range(args.rounds)]
        report({recipe: min(costs[recipe] for costs in rounds) for recipe in commands}, args.members)


def recipes(folder: Path, *, tarfile_too: bool) -> dict[str, list[str]]:
    """Arguments of Python for each recipe."""
    tar = folder / "tiles.tar"
    ours = [str(SCRIPT), "--tarball_path", str(tar), "--output_root", str(folder)]
    reference = ["-c", f"import tarfile; tarfile.open({str(tar)!r}).getmembers()"]
    found = {"tarfile.getmembers": reference} if tarfile_too else {}
    return found | {"infer_entries": ours, "infer_entries --csv": [*ours, "--csv", str(folder / "labels.csv")]}


def run(command: list[str]) -> Cost:
    """What one process takes from start to end."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} failed")
    return time.perf_counter() - began, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def report(costs: dict[str, Cost], members: int) -> None:
    """Print seconds, ratios to tarfile and peak memory of each recipe."""
    nothing = (float("nan"), float("nan"), 0)
    reference = costs.get("tarfile.getmembers", nothing)
    print(f"{members:,} members, start-up included")
    print(f"{'recipe':20} {'seconds':>8} {'members/s':>11} {'ratio':>6} {'CPU s':>7} {'ratio':>6} {'peak MB':>8}")
    for recipe, (wall, cpu, peak) in costs.items():
        print(
            f"{recipe:20} {wall:8.2f} {members / wall:11,.0f} {reference[0] / wall:6.1f} {cpu:7.2f} "
            f"{reference[1] / cpu:6.1f} {peak / 1e6:8.1f}"
        )


def make(folder: Path, args: argparse.Namespace) -> None:
    """The tar and the csv."""
    make_tar(folder / "tiles.tar", members=args.members, tile_bytes=args.tile_bytes, pax=args.format == "pax")
    make_csv(folder / "labels.csv", members=args.members)


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
