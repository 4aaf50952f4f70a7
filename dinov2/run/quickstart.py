"""The quick start: from tiles to a trained model through the same commands that a real run uses.

Started by `bash scripts/quickstart.sh`; every command it runs is printed.
"""

import argparse
import ctypes
import json
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __package__ in (None, ""):  # started by its path: make the package importable without an installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from dinov2.errors import ExitCode, UserError
from dinov2.train.arguments import check_arguments
from dinov2.train.arguments import get_args_parser as train_arguments
from dinov2.utils.atomic import write_text
from dinov2.utils.cli import ENDING, Parser, run_command
from dinov2.utils.dataset_strings import join_dataset_string
from dinov2.utils.outputs import try_folder

if TYPE_CHECKING:
    from dinov2.run.tile_sets import Tile

REPOSITORY = Path(__file__).resolve().parents[2]
SETTINGS = REPOSITORY / "dinov2" / "configs" / "train" / "quickstart.yaml"
PARTS = ("data", "tiles", "tarballs", "run", "summary.json", "report.html", "figures")
MARKER = ".quickstart"  # a folder with this file is ours to empty
NEIGHBOURS = 20
DEMO_TILES = 2000
_PR_SET_PDEATHSIG = 1  # of Linux's prctl


@dataclass(frozen=True)
class Summary:
    """The outcome, as written to summary.json; accuracies are balanced ones from 0 to 1, None without labels."""

    knn_untrained: float | None
    knn_trained: float | None
    loss_first: float
    loss_last: float
    tiles_per_second: float
    seconds: float


def get_args_parser() -> argparse.ArgumentParser:
    """The options of the quick start."""
    parser = Parser("quickstart", description="Train a small ViT on synthetic or your own tiles.")
    parser.add_argument("--seed", type=int, default=0, help="of the demo tiles and the training")
    parser.add_argument("--data", type=Path, metavar="DIR", help="your own images, class subfolders optional")
    parser.add_argument("--output", type=Path, default=REPOSITORY / "quickstart", metavar="DIR")
    parser.add_argument(
        "opts", nargs="*", metavar="key=value", help="settings of the training, such as optim.max_iter=50"
    )
    return parser


def main(args: argparse.Namespace) -> int:
    """Make or take tiles, pack, index, train, summarise."""
    started = time.monotonic()
    output: Path = args.output.resolve()
    if args.data is not None and not args.data.is_dir():
        raise UserError(
            f"--data {args.data} is no folder" if args.data.exists() else f"--data {args.data} does not exist"
        )
    if args.data is not None and args.data.resolve().is_relative_to(output):
        raise UserError(f"--data {args.data} lies in the output folder {output}; name another --output")
    check_arguments(train_arguments().parse_args(["--config-file", str(SETTINGS), *args.opts]), files=False)
    from dinov2.visualize.report import require_matplotlib, write_report

    require_matplotlib()
    prepare(output)
    tiles = collect_tiles(args, output)
    labelled = any("test" in tile.splits for tile in tiles)
    pack_and_index(tiles, output, labelled=labelled)
    train(args, output, labelled=labelled)
    write_report([output / "run"], output / "report.html", png_dir=output / "figures")
    summary = summarise(output / "run", seconds=time.monotonic() - started)
    write_text(output / "summary.json", json.dumps(asdict(summary), indent=1) + "\n")
    sys.stdout.write(as_table(summary, output))
    return 0


def prepare(output: Path) -> None:
    """Make the output folder; one that an earlier quick start has made is emptied of what it wrote.

    Raises:
        UserError: if there is a folder with files that no quick start has made.
    """
    if output.is_dir() and any(output.iterdir()) and not (output / MARKER).exists():
        raise UserError(f"--output {output} is not empty and was not made by a quick start; name another folder")
    try_folder(output)
    (output / MARKER).touch()
    for part in PARTS:
        path = output / part
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def collect_tiles(args: argparse.Namespace, output: Path) -> "list[Tile]":
    """Draw the demo tiles, or list the user's."""
    from dinov2.run.tile_sets import tiles_of_demo, tiles_of_folder

    if args.data is not None:
        return tiles_of_folder(args.data, seed=args.seed)
    run("-m", "dinov2.data.demo", "--output", output / "data", "--seed", args.seed, "--num-tiles", DEMO_TILES)
    return tiles_of_demo(output / "data")


def pack_and_index(tiles: "list[Tile]", output: Path, *, labelled: bool) -> None:
    """Make the tarballs and their indices; scripts/prepare_dataset.py does both, and checks the tiles."""
    from dinov2.run.tile_sets import write_tile_sets

    tarballs = output / "tarballs"
    tarballs.mkdir()
    write_tile_sets(tiles, output / "tiles")
    scripts, downstream = REPOSITORY / "scripts", tarballs / "downstream_dataset.tar"
    run(scripts / "prepare_dataset.py", "--images", output / "tiles" / "pretrain", "--output_root", tarballs)
    if not labelled:
        return
    place = ("--output_root", tarballs, "--tarball_path", downstream)
    run_program("tar", "-chf", downstream, "-C", output / "tiles" / "downstream", ".")
    for split in ("query", "test"):
        lists = ("--keep", output / "tiles" / f"{split}.txt", "--csv", output / "tiles" / "labels.csv")
        run(scripts / "infer_entries.py", *place, "--prefix", split, *lists)
        run(scripts / "verify_dataset.py", *place, "--name", split, "--write_crc")


def train(args: argparse.Namespace, output: Path, *, labelled: bool) -> None:
    """Train with the ordinary command and the packaged quick-start configuration."""
    place = [("root", str(output / "tarballs")), ("extra", str(output / "tarballs"))]
    settings = [f"train.dataset_path={join_dataset_string('Pathology', place)}", f"train.seed={args.seed}"]
    if labelled:
        splits = {split: join_dataset_string("KNN", [*place, ("split", split)]) for split in ("query", "test")}
        settings += [f"tune.{split}_dataset_path={dataset}" for split, dataset in splits.items()]
    run(
        REPOSITORY / "dinov2" / "train" / "train.py",
        *("--config-file", SETTINGS),
        *("--output-dir", output / "run"),
        *settings,
        *args.opts,
    )


def summarise(run_dir: Path, *, seconds: float) -> Summary:
    """Read the figures of a finished run."""
    from dinov2.visualize.report import read_rows

    metrics, tuning = (
        [row for row in read_rows(run_dir / name) if row] for name in ("training_metrics.json", "results/tune.jsonl")
    )
    name = f"teacher.bacc_{NEIGHBOURS}"
    return Summary(
        knn_untrained=tuning[0][name] if tuning else None,
        knn_trained=tuning[-1][name] if tuning else None,
        loss_first=metrics[0]["total_loss"],
        loss_last=metrics[-1]["total_loss"],
        tiles_per_second=statistics.median(line["tiles_per_second"] for line in metrics[1:] or metrics),
        seconds=round(seconds, 1),
    )


def as_table(summary: Summary, output: Path) -> str:
    """The summary for people."""
    rows = [("", "untrained" if summary.knn_trained is not None else "start", "trained")]
    if summary.knn_untrained is not None and summary.knn_trained is not None:
        before, after = (f"{100 * value:.1f} %" for value in (summary.knn_untrained, summary.knn_trained))
        rows.append((f"{NEIGHBOURS}-NN balanced accuracy", before, after))
    rows.append(("loss", f"{summary.loss_first:.3f}", f"{summary.loss_last:.3f}"))
    lines = [f"  {label:<24}{first:>12}{last:>12}" for label, first, last in rows]
    lines.append(f"\n  {summary.tiles_per_second:.0f} tiles per second, {summary.seconds:.0f} s in all")
    lines.append(f"  report      {output / 'report.html'}")
    lines.append(f"  summary     {output / 'summary.json'}")
    exports = sorted((output / "run" / "eval").glob("*/teacher_checkpoint.pth"), key=lambda path: path.stat().st_mtime)
    lines.append(f"  model       {exports[-1]}")
    lines.append(f"  checkpoints {output / 'run' / 'checkpoints'}")
    return "\n" + "\n".join(lines) + "\n"


def run(*arguments: object) -> None:
    """Run a Python program of this project."""
    run_program(sys.executable, *arguments)


def run_program(*arguments: object) -> None:
    """Show a command and run it; it gets the signals that end this one, once each, and says what it does about them.

    Raises:
        UserError: if it fails; it has said why.
        SystemExit: if a signal has ended it, or made it save and end.
    """
    command = [str(argument) for argument in arguments]
    shown = ["python" if part == sys.executable else part for part in command]
    sys.stdout.write(f"\n$ {shlex.join(shown)}\n")
    sys.stdout.flush()
    # In a session of its own, which the terminal's signals do not reach.
    with subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True, preexec_fn=_end_with_parent) as process:
        before = {number: signal.signal(number, lambda sent, frame: process.send_signal(sent)) for number in ENDING}
        status = process.wait()
    for number, handler in before.items():
        signal.signal(number, handler)
    if status == ExitCode.INTERRUPTED:
        sys.stderr.write("the command above goes on, if it is typed as shown; the quick start itself begins anew\n")
    if status == ExitCode.INTERRUPTED or -status in ENDING:
        sys.exit(status if status > 0 else 128 - status)
    if status:
        raise UserError(f"the command above failed with status {status}; its message says why")


def _end_with_parent() -> None:
    """Have this process asked to stop when the one that has started it is killed; only Linux can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


if __name__ == "__main__":
    run_command(lambda: main(get_args_parser().parse_intermixed_args()))
