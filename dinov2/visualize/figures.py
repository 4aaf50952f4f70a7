"""The figures of a report, made from whatever the runs have logged.

Every logged figure is in one of them: what no panel is planned for is drawn in the last.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from .plots import Limit, Line, Mark, Panel, Plot, make_curves
from .run_folder import Run
from .score_figure import score_plot

_WINDOW = "Medians of 20 iterations, reported every 10."
_UNDRAWN = frozenset({"current_batch_size"})  # constant
_GRADIENTS = "grad_norm_"


@dataclass(frozen=True)
class PanelPlan:
    """A panel that is drawn where one of its names is logged.

    Attributes:
        moments: (duration of the timeline, label) of what ends during the training.
    """

    title: str
    unit: str
    lines: tuple[Line, ...]
    scale: float = 1.0
    from_zero: bool = False
    moments: tuple[tuple[str, str], ...] = ()


LOSSES = (
    PanelPlan("sum of the parts", "loss", (Line("total_loss"),)),
    PanelPlan("optimised objective", "loss", (Line("loss_total_optimized"),)),
    PanelPlan("DINO, global crops", "loss", (Line("dino_global_crops_loss"),)),
    PanelPlan("DINO, local crops", "loss", (Line("dino_local_crops_loss"),)),
    PanelPlan("iBOT", "loss", (Line("ibot_loss"),)),
    PanelPlan("KoLeo", "loss", (Line("koleo_loss"),)),
)
SCHEDULES = (
    PanelPlan(
        "learning rate",
        "learning rate",
        (Line("lr", "all other layers"), Line("last_layer_lr", "last layer of the heads", 1)),
        moments=(("warmup", "warm-up ends"), ("freeze_last_layer", "last layer thaws")),
        from_zero=True,
    ),
    PanelPlan("weight decay", "weight decay", (Line("wd"),)),
    PanelPlan("momentum of the teacher", "momentum", (Line("mom"),)),
    PanelPlan(
        "temperature of the teacher",
        "temperature",
        (Line("teacher_temp"),),
        moments=(("teacher_temp_warmup", "warm-up ends"),),
    ),
)
THROUGHPUT = (
    PanelPlan("throughput", "tiles / s", (Line("tiles_per_second"),), from_zero=True),
    PanelPlan("waiting for data", "share of the time [%]", (Line("data_wait_share"),), scale=100, from_zero=True),
    PanelPlan("an iteration", "time [s]", (Line("iter_time", "all"), Line("data_time", "data", 1)), from_zero=True),
    PanelPlan("model FLOP utilisation", "share of the peak [%]", (Line("mfu"),), scale=100, from_zero=True),
    PanelPlan("GPU memory, largest so far", "memory [GiB]", (Line("max_mem_mb"),), scale=1 / 1024, from_zero=True),
)


def make_plots(runs: Sequence[Run]) -> list[Plot]:
    """The figures that the runs have something for, in the order of the report."""
    plots = [
        score_plot(runs),
        Plot(
            "losses",
            "Losses",
            f"{_WINDOW} As in DINOv2, KoLeo carries its weight, and KoLeo and iBOT are shown at half of what enters the "
            "optimised objective.",
            _panels(runs, LOSSES),
        ),
        Plot(
            "schedules",
            "Schedules",
            f"{_WINDOW} The medians trail the schedules by ten iterations. Dotted: ends of what the timeline plans.",
            _panels(runs, SCHEDULES),
        ),
        Plot(
            "throughput",
            "Throughput",
            "Means of 20 iterations, reported every 10, without evaluations and checkpoints.",
            _panels(runs, THROUGHPUT),
        ),
        _gradient_plot(runs),
        _other_plot(runs),
    ]
    return [plot for plot in plots if plot.panels]


def _panels(runs: Sequence[Run], plans: Iterable[PanelPlan]) -> list[Panel]:
    panels = [
        Panel(
            plan.title,
            plan.unit,
            make_curves(runs, plan.lines, scale=plan.scale),
            marks=_ends(runs, plan.moments),
            from_zero=plan.from_zero,
        )
        for plan in plans
    ]
    return [panel for panel in panels if panel.curves]


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


def _gradient_plot(runs: Sequence[Run]) -> Plot:
    names = [name for name in _logged(runs) if name.startswith(_GRADIENTS)]
    limits = sorted({float(limit) for run in runs if _is_number(limit := run.settings.values.get("optim.clip_grad"))})
    panels = [
        Panel(
            name.removeprefix(_GRADIENTS).replace("_", " "),
            "gradient norm",
            make_curves(runs, [Line(name)]),
            limits=[Limit(limit, "clipped above") for limit in limits],
            log=True,
        )
        for name in names
    ]
    caption = f"Norms of the student's parts before clipping. {_WINDOW}"
    return Plot("gradients", "Gradients", caption, panels)


def _other_plot(runs: Sequence[Run]) -> Plot:
    planned = {line.name for plan in (*LOSSES, *SCHEDULES, *THROUGHPUT) for line in plan.lines} | _UNDRAWN
    names = [name for name in _logged(runs) if name not in planned and not name.startswith(_GRADIENTS)]
    panels = [Panel(name.replace("_", " "), "", make_curves(runs, [Line(name)])) for name in names]
    return Plot("others", "Other figures", f"Whatever else was logged. {_WINDOW}", panels)


def _logged(runs: Sequence[Run]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run.metrics.values))


def _is_number(value: object) -> bool:
    """Whether a setting is a limit; 0 stands for none."""
    return isinstance(value, int | float) and value > 0
