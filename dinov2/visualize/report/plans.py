"""Panels planned by the names they show, made from what the runs have logged."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from operator import attrgetter

from .json_lines import Columns
from .plots import Limit, Line, Mark, Panel, make_curves
from .run_folder import Run

WINDOW = "Medians of 20 iterations, reported every 10."


@dataclass(frozen=True)
class PanelPlan:
    """A panel that is drawn where one of its names is logged.

    Attributes:
        scale: what values are multiplied by.
        moments: (duration of the timeline, label) of what ends during the training.
        limits: values that matter, unscaled.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    log: bool = False
    from_zero: bool = False
    moments: tuple[tuple[str, str], ...] = ()
    limits: tuple[Limit, ...] = ()


def make_panels(
    runs: Sequence[Run], plans: Iterable[PanelPlan], *, source: Callable[[Run], Columns] = attrgetter("metrics")
) -> list[Panel]:
    """The panels that one of the runs has a name for; `source` says where."""
    panels = [
        Panel(
            plan.title,
            plan.unit,
            make_curves(runs, plan.lines, source=source, scale=plan.scale),
            marks=_ends(runs, plan.moments),
            limits=[Limit(limit.value * plan.scale, limit.label) for limit in plan.limits],
            log=plan.log,
            from_zero=plan.from_zero,
        )
        for plan in plans
    ]
    return [panel for panel in panels if panel.curves]


def logged_names(runs: Sequence[Run]) -> list[str]:
    """All names in the metrics of the runs."""
    return list(dict.fromkeys(name for run in runs for name in run.metrics.values))


def _ends(runs: Sequence[Run], moments: Sequence[tuple[str, str]]) -> list[Mark]:
    """When durations end, of those that have; in the colours of the runs where they differ."""
    marks = []
    for duration, label in moments:
        ends = [run.timeline.get(duration, 0) for run in runs]
        over = {number: end for number, end in enumerate(ends) if 0 < end < runs[number].steps}
        if len(set(ends)) == 1 and over:
            marks.append(Mark(ends[0], label))
        else:
            marks += [Mark(end, label, colour=number) for number, end in over.items()]
    return marks
