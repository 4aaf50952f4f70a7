"""The figure that shows whether the teacher still tells images apart; see `train.collapse`."""

from collections.abc import Sequence
from dataclasses import replace
from math import log

from dinov2.train.collapse import EARLIEST_ALARM, LIMITS, PATIENCE

from .json_lines import Columns
from .plans import PanelPlan, make_panels
from .plots import Limit, Line, Plot
from .run_folder import Run

_MINUS = " - "  # between two names of train.collapse.LIMITS: their difference
_CAPTION = (
    f"Each reported figure is of one step. Dashed: where a warning is logged, after {PATIENCE} figures in a row below "
    f"it and not before warm-up and iteration {EARLIEST_ALARM} are over; log K, the entropy of uniform targets. What "
    "targets say about their image is the entropy of the mean target minus the mean entropy of targets."
)


def collapse_plot(runs: Sequence[Run]) -> Plot:
    """Targets, prototypes and class tokens over the training."""
    plans = [*_target_plans(runs, "dino", "DINO"), *_target_plans(runs, "ibot", "iBOT"), *_TOKENS]
    panels = make_panels(runs, [_with_limits(plan) for plan in plans], source=_with_differences)
    return Plot("collapse", "Collapse", _CAPTION, panels)


_TOKENS = (
    PanelPlan("spread of class tokens", "std * sqrt(D)", (Line("cls_std"),), from_zero=True),
    PanelPlan("dimensions of class tokens", "effective rank", (Line("cls_rank"),), from_zero=True),
    PanelPlan("student and teacher", "cosine of class tokens", (Line("student_teacher_cosine"),)),
)


def _target_plans(runs: Sequence[Run], kind: str, name: str) -> list[PanelPlan]:
    entropy, of_mean = f"{kind}_target_entropy", f"{kind}_mean_target_entropy"
    uniform = tuple(Limit(log(count), f"log {count:,}") for count in sorted(_prototypes(runs, kind)))
    return [
        PanelPlan(
            f"{name} targets",
            "entropy [nats]",
            (Line(entropy, "mean"), Line(of_mean, "of the mean", 1)),
            from_zero=True,
            limits=uniform,
        ),
        PanelPlan(
            f"{name} targets, about their image",
            "information [nats]",
            (Line(f"{of_mean}{_MINUS}{entropy}"),),
            from_zero=True,
        ),
        PanelPlan(
            f"{name} prototypes in use",
            "share [%]",
            (Line(f"{kind}_prototypes_used"),),
            scale=100,
            from_zero=True,
        ),
    ]


def _prototypes(runs: Sequence[Run], kind: str) -> set[int]:
    """The numbers K of prototypes that targets of a kind are over."""
    shown = [run.settings.values for run in runs if f"{kind}_target_entropy" in run.metrics.values]
    sections = [kind if values.get("ibot.separate_head") else "dino" for values in shown]
    counts = [values.get(f"{section}.head_n_prototypes") for values, section in zip(shown, sections)]
    return {count for count in counts if isinstance(count, int) and count > 1}


def _with_limits(plan: PanelPlan) -> PanelPlan:
    limits = [Limit(LIMITS[line.name][0], "warning below") for line in plan.lines if line.name in LIMITS]
    return replace(plan, limits=(*plan.limits, *limits))


def _with_differences(run: Run) -> Columns:
    values = dict(run.metrics.values)
    for name in LIMITS:
        first, _, second = name.partition(_MINUS)
        if first in values and second in values:
            values[name] = values[first] - values[second]
    return replace(run.metrics, values=values)
