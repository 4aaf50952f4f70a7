"""What one wants to know of a run first: is it still going, how far is it, how good is it."""

import time
from collections.abc import Callable, Sequence
from datetime import timedelta

import numpy as np

from .run_folder import Run
from .score_figure import readable, shown_value
from .scores import best_score, stopped_early

IDLE_AFTER = 1800.0  # seconds without a write after which a run that has not ended does not count as running
UNKNOWN = "\N{EN DASH}"


def facts_of(runs: Sequence[Run]) -> list[tuple[str, list[str]]]:
    """(name of a fact, its text for every run), of those that are known of one of them."""
    facts: dict[str, Callable[[Run], str]] = {
        "state": state_of,
        "iterations": _iterations,
        "model": _model,
        "best score": _best,
        "newest score": _newest_score,
        "time in training steps": _duration,
        "tiles seen": _tiles,
        "tiles per second": _speed,
        "waiting for data": _waiting,
        "bad tiles": lambda run: f"{len(run.bad_tiles):,}",
        "steps without a finite loss or gradient": lambda run: f"{len(run.nonfinite):,}",
        "newest checkpoint": _checkpoint,
        "exported teachers": _exports,
        "last written to": lambda run: _moment(run.changed),
        "folder": lambda run: str(run.path),
    }
    rows = [(name, [fact(run) for run in runs]) for name, fact in facts.items()]
    return [(name, texts) for name, texts in rows if set(texts) != {UNKNOWN}]


def state_of(run: Run) -> str:
    """Whether the run goes on: finished and stopped early by its files, running by when they were written."""
    saved = not run.checkpoints or run.checkpoints[-1] >= run.steps  # its last act is a checkpoint
    if run.total is not None and run.steps >= run.total and saved:
        return "finished"
    if stopped_early(run) and saved:
        return "stopped early"
    if _was_asked_to_stop(run):
        return "stopped when asked to; the same command goes on"
    idle = time.time() - run.changed
    if idle < IDLE_AFTER:
        return "running"
    return f"not running: nothing written for {timedelta(seconds=round(idle))}, and not at its end"


def _was_asked_to_stop(run: Run) -> bool:
    """Whether that is the last word of its log."""
    log = run.path / "logs" / "log.txt"
    if not log.is_file():
        return False
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 1000))
        return b"] asked to stop by " in (file.read().splitlines() or [b""])[-1]


def training_seconds(run: Run) -> float:
    """Seconds in training steps: each report's mean time of an iteration, for the iterations since the one before."""
    return float(np.nansum(_finite(run, "iter_time") * _iterations_per_report(run)))


def tiles_seen(run: Run) -> int:
    """Tiles of all processes: the global batch of each report, for the iterations since the one before."""
    batches = np.rint(_finite(run, "tiles_per_second") * _finite(run, "iter_time"))
    return int(np.nansum(batches * _iterations_per_report(run)))


def _iterations_per_report(run: Run) -> np.ndarray:
    """(reports,) iterations that each report is about."""
    return np.diff(run.metrics.iterations, prepend=-1)


def _finite(run: Run, name: str) -> np.ndarray:
    """(reports,) values of a name, NaN where there is none."""
    values = run.metrics.values.get(name, np.full(len(run.metrics), np.nan))
    return np.where(np.isfinite(values), values, np.nan)


def _iterations(run: Run) -> str:
    if run.total is None:
        return f"{run.steps:,}"
    return f"{run.steps:,} of {run.total:,} ({run.steps / max(run.total, 1):.0%})"


def _model(run: Run) -> str:
    arch, patch = (run.settings.values.get(f"student.{name}") for name in ("arch", "patch_size"))
    return UNKNOWN if arch is None else f"{arch}/{patch}"


def _best(run: Run) -> str:
    best = best_score(run)
    if best is None:
        return UNKNOWN
    low, high = (shown_value(best.name, edge) for edge in best.interval) if best.interval else ("", "")
    interval = f" ({low} to {high})" if best.interval else ""
    return f"{shown_value(best.name, best.value)}{interval} after {best.iteration:,} iterations: {readable(best.name)}"


def _newest_score(run: Run) -> str:
    best = best_score(run)
    newest = run.scores.last(best.name) if best else None
    if best is None or newest is None:
        return UNKNOWN
    return f"{shown_value(best.name, newest)} after {run.scores.iterations[-1]:,} iterations"


def _duration(run: Run) -> str:
    seconds = training_seconds(run)
    if not seconds:
        return UNKNOWN
    return f"{seconds / 3600:,.1f} h" if seconds >= 3600 else f"{seconds / 60:.1f} min"


def _tiles(run: Run) -> str:
    return f"{tiles_seen(run):,}" if tiles_seen(run) else UNKNOWN


def _speed(run: Run) -> str:
    seconds = training_seconds(run)
    newest = run.metrics.last("tiles_per_second")
    if not seconds or newest is None:
        return UNKNOWN
    average, last = (
        f"{speed:,.0f}" if speed >= 100 else f"{speed:.1f}" for speed in (tiles_seen(run) / seconds, newest)
    )
    return f"{average} on average, {last} last"


def _waiting(run: Run) -> str:
    seconds = training_seconds(run)
    waited = np.nansum(_finite(run, "data_time") * _iterations_per_report(run))
    return f"{waited / seconds:.0%} of the time" if seconds else UNKNOWN


def _checkpoint(run: Run) -> str:
    return f"after {run.checkpoints[-1]:,} iterations; {len(run.checkpoints)} kept" if run.checkpoints else UNKNOWN


def _exports(run: Run) -> str:
    if not run.exports:
        return UNKNOWN
    return f"{len(run.exports)}, the newest {run.exports[-1].relative_to(run.path)}"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else UNKNOWN
