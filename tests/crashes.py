"""Trainings that are killed, and what must be the same in the end."""

import hashlib
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NamedTuple

from forks import exit_codes, forked, run_training, wait_until
from runs import arguments, metrics_of

from dinov2.train import loop as loop_module
from dinov2.train.checkpoint import SavedCheckpoint, state_digest
from dinov2.utils import faults

STEPS = 12
TIMED = ("iter_time", "data_time", "tiles_per_second", "data_wait_share")

# Everything that a step has: crops of two sizes, masks, all losses, dropped branches, evaluations and exports.
COMPLETE = [
    *(f"optim.max_iter={STEPS}", "train.num_workers=2", "train.keep_last=2"),
    "train.deterministic=true",  # which a CPU is in any case
    *("train.centering=sinkhorn_knopp", "evaluation.eval_period_iterations=4"),
]


def training(images: Path, output: Path, *overrides: str) -> list[str]:
    """Arguments of a training that saves every other step."""
    return arguments(images, output, *COMPLETE, *overrides)


def report_every_step(rank: int) -> None:
    """More lines of metrics to lose than in a real training."""
    loop_module.LOG_EVERY = 1


def planned(plan: str, ranks: Sequence[int] = (0,)):
    """A preparation that makes some ranks of a forked training fail on purpose."""

    def prepare(rank: int) -> None:
        report_every_step(rank)
        if rank in ranks:
            faults._plan = faults.parse_plan(plan)

    return prepare


def run(arguments: list[str], logs: Path, *, ranks: int = 1, prepare=report_every_step, timeout: float = 240) -> list:
    """Run a training to its end; exit codes of its processes, None for those that did not end."""
    with forked(run_training, arguments, prepare, ranks=ranks, logs=logs) as processes:
        return exit_codes(processes, timeout)


class Outcome(NamedTuple):
    """What a training leaves behind, apart from times."""

    state: str  # digest of the last checkpoint
    metrics: str  # digest of the lines of training_metrics.json
    iterations: tuple[int, ...]  # that have a line
    files: tuple[str, ...]


def outcome(output: Path, steps: int = STEPS) -> Outcome:
    """Read what a finished training has left behind."""
    saved = SavedCheckpoint(output / "checkpoints" / f"step-{steps:07d}", steps)
    lines = metrics_of(output)
    timeless = [{name: value for name, value in line.items() if name not in TIMED} for line in lines]
    files = sorted(
        str(path.relative_to(output)) for path in output.rglob("*") if path.is_file() and "logs" not in path.parts
    )
    return Outcome(
        state_digest(saved.read_all(), saved.values),
        hashlib.sha256(repr(timeless).encode()).hexdigest(),
        tuple(line["iteration"] for line in lines),
        tuple(files),
    )


def kill_at_random(arguments: list[str], output: Path, logs: Path, *, seed: int, kills: int) -> int:
    """Run a training that is killed up to `kills` times, and then once to its end.

    It is killed some steps after where it goes on from, anywhere in a step, a save or an export, or, more rarely,
    while it starts.

    Returns:
        How often it was killed before it had ended.
    """
    rng, killed = random.Random(seed), 0
    for number in range(kills):
        with forked(run_training, arguments, report_every_step, logs=logs / str(number)) as (process,):
            if rng.random() < 0.85:
                wait_until(partial(has_taken, rng.randint(1, 4), process, logs / str(number)), pause=0.002)
            process.join(rng.uniform(0, 0.3))
            if process.exitcode is None:
                process.kill()
                killed += 1
    (code,) = run(arguments, logs / "last")
    assert code == 0, (logs / "last" / "rank0.txt").read_text()[-3000:]
    return killed


def has_taken(steps: int, process: BaseProcess, logs: Path) -> bool:
    """Whether a training that began just now has reported so many steps, or a process of it has ended."""
    log = logs / "rank0.txt"
    return process.exitcode is not None or (log.exists() and log.read_text().count(" Training  [") >= steps)


def in_parallel(function: Callable[..., Any], items: Iterable[Any]) -> list[Any]:
    """Results of function(item) in order, two at a time, each in a process that may start processes."""
    with ProcessPoolExecutor(2, mp_context=get_context("fork")) as pool:
        return list(pool.map(function, items))
