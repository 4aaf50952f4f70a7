"""Smoothed metrics, their log lines, and `training_metrics.json` in DINOv2's line format."""

import json
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch

from dinov2.distributed import is_main_process

logger = logging.getLogger("dinov2")

T = TypeVar("T")
_END: Any = object()


@dataclass
class _Iteration:
    """The iteration that `log_every` is in."""

    number: int
    begun: float  # seconds
    due: bool  # whether it gets a report
    report: Callable[[int], None]
    timed: bool = False
    reported: bool = False


class SmoothedValue:
    """The last values of one metric, and the mean of all of them."""

    def __init__(self, window_size: int = 20) -> None:
        self.deque: deque[float] = deque(maxlen=window_size)
        self.total = 0.0
        self.count = 0

    def update(self, value: float, num: int = 1) -> None:
        """Add a value that stands for `num` observations."""
        self.deque.append(value)
        self.count += num
        self.total += value * num

    @property
    def median(self) -> float:
        """Median of the window in float32; the lower middle value of an even number."""
        return torch.tensor(list(self.deque), dtype=torch.float32).median().item()

    @property
    def avg(self) -> float:
        """Mean of the window."""
        return torch.tensor(list(self.deque), dtype=torch.float32).mean().item()

    @property
    def global_avg(self) -> float:
        """Mean of all values."""
        return self.total / max(self.count, 1)

    def state_dict(self) -> dict[str, Any]:
        """What a resumed run needs to go on with the same medians."""
        window = list(self.deque)
        return {"window": window, "window_size": self.deque.maxlen, "total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of `state_dict`."""
        self.deque = deque(state["window"], maxlen=state["window_size"])
        self.total, self.count = state["total"], state["count"]

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.global_avg:.4g})"


class MetricLogger:
    """Metrics by name; walks a loader and reports every few iterations."""

    def __init__(
        self,
        delimiter: str = "  ",
        output_file: str | Path | None = None,
        *,
        derive: Callable[[float, float], Mapping[str, float]] | None = None,
        describe: Callable[[Mapping[str, float]], str] | None = None,
        on_report: Callable[[Mapping[str, float]], None] | None = None,
    ) -> None:
        """Collect metrics.

        Args:
            output_file: gets a line at every report; give it to the main process only.
            derive: further figures of a report from the mean seconds of an iteration and of its wait for data.
            describe: a report in the words of the log; all metrics without it.
            on_report: also gets every report.
        """
        self.meters: dict[str, SmoothedValue] = {}
        self.timers = {"iter_time": SmoothedValue(), "data_time": SmoothedValue()}
        self.delimiter = delimiter
        self.output_file = Path(output_file) if output_file else None
        self.derive = derive
        self.describe = describe
        self.on_report = on_report
        self._stop = False
        self._current: _Iteration | None = None
        self._untimed = 0.0  # seconds of the current iteration that are no training
        self._paused: float | None = None  # when the present block of such seconds began

    def update(self, **values: float) -> None:
        """Add one value of each named metric."""
        for name, value in values.items():
            self.meters.setdefault(name, SmoothedValue()).update(float(value))

    def show(self, **values: float) -> None:
        """Report the last value of each named metric instead of a median."""
        for name, value in values.items():
            self.meters.setdefault(name, SmoothedValue(window_size=1)).update(float(value))

    def stop(self) -> None:
        """Let `log_every` report the current iteration and end."""
        self._stop = True

    @contextmanager
    def untimed(self) -> Iterator[None]:
        """Leave the time of the block (an evaluation, a checkpoint) out of the iteration's."""
        self._paused = time.perf_counter()
        yield
        self._untimed += time.perf_counter() - self._paused
        self._paused = None

    def report(self) -> None:
        """Report the iteration that `log_every` is in, if it is due and not done yet; `log_every` does so at its end.

        For what must come after the report, such as a checkpoint that says that the iteration is over.
        """
        current = self._current
        if current is None:
            return
        if not current.timed:
            now = time.perf_counter() if self._paused is None else self._paused
            self.timers["iter_time"].update(now - current.begun - self._untimed)
            current.timed = True
        if (current.due or self._stop) and not current.reported:
            current.reported = True
            current.report(current.number)

    def sync(self) -> None:
        """Wait until the lines of the file are on disk, as they must be before a checkpoint that comes after them."""
        if self.output_file is not None and self.output_file.exists():
            with self.output_file.open("rb") as file:
                os.fsync(file.fileno())

    def state_dict(self) -> dict[str, Any]:
        """Windows and totals of all metrics."""
        return {name: meter.state_dict() for name, meter in self.meters.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take the state of `state_dict`."""
        for name, values in state.items():
            self.meters.setdefault(name, SmoothedValue()).load_state_dict(values)

    def __str__(self) -> str:
        return self.delimiter.join(f"{name}: {meter}" for name, meter in self.meters.items())

    def snapshot(self, iteration: int) -> dict[str, float]:
        """One line of `training_metrics.json`: mean times and the metrics' medians."""
        line: dict[str, float] = {"iteration": iteration}
        line.update({name: timer.avg for name, timer in self.timers.items()})
        line.update({name: meter.median for name, meter in self.meters.items()})
        if self.derive is not None:
            line.update(self.derive(line["iter_time"], line["data_time"]))
        return line

    def log_every(
        self,
        iterable: Iterable[T],
        print_freq: int,
        header: str = "",
        n_iterations: int | None = None,
        start_iteration: int = 0,
    ) -> Iterator[T]:
        """Give out the items; after every `print_freq`th iteration and the last one, report.

        Args:
            n_iterations: where counting ends; the iterable is stopped there.
            start_iteration: number of the first item.
        """
        total = len(iterable) if n_iterations is None else n_iterations  # type: ignore[arg-type]
        started = ended = time.perf_counter()
        done = start_iteration
        source = iter(iterable)
        with _progress_bar(total, start_iteration, header) as bar:
            for iteration in range(start_iteration, total):
                item = next(source, _END)
                if item is _END:
                    break
                self.timers["data_time"].update(time.perf_counter() - ended)
                due = iteration % print_freq == 0 or iteration == total - 1
                self._current = _Iteration(iteration, ended, due, partial(self._report, total, header, bar))
                yield item
                self.report()
                done = iteration + 1
                self._untimed = 0.0
                ended = time.perf_counter()
                bar.update(1)
                if self._stop:
                    break
        seconds = time.perf_counter() - started
        logger.info(f"{header} took {timedelta(seconds=int(seconds))} for {done - start_iteration} iterations")

    def _report(self, total: int, header: str, bar: Any, iteration: int) -> None:
        line = self.snapshot(iteration)
        if self.output_file is not None:
            with self.output_file.open("a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        if self.on_report is not None:
            self.on_report(line)
        # Beside a bar the line goes to the log file only.
        logger.info(self._text(line, iteration, total, header), extra={"beside_bar": not bar.disable})
        shown = {"total_loss": "loss", "tiles_per_second": "tiles/s"}
        bar.set_postfix({label: f"{line[name]:.4g}" for name, label in shown.items() if name in line})

    def _text(self, line: Mapping[str, float], iteration: int, total: int, header: str) -> str:
        """A report as one line of the log."""
        minutes, seconds = divmod(int(self.timers["iter_time"].global_avg * (total - 1 - iteration)), 60)
        remaining = f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
        parts = [f"{header}  [{iteration:{len(str(total))}d}/{total}]", f"eta: {remaining}"]
        if self.describe is not None:
            return self.delimiter.join([*parts, self.describe(line)])
        parts += [str(self), f"time: {line['iter_time']:.4g}", f"data: {line['data_time']:.4g}"]
        derived = self.derive(line["iter_time"], line["data_time"]) if self.derive else {}
        return self.delimiter.join([*parts, *(f"{name}: {value:.4g}" for name, value in derived.items())])


def _progress_bar(total: int, start: int, header: str) -> Any:
    """A bar on the terminal of the main process; elsewhere nothing is drawn and lines are logged instead."""
    from tqdm import tqdm

    hidden = not (sys.stderr.isatty() and is_main_process())
    return tqdm(total=total, initial=start, desc=header, disable=hidden, dynamic_ncols=True)
