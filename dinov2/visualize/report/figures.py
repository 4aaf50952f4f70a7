"""The figures of a report, made from whatever the runs have logged.

Every logged name is in one of them: what no panel is planned for comes last.
"""

from collections.abc import Sequence

from .collapse_figure import collapse_plot
from .plans import WINDOW, PanelPlan, logged_names, make_panels
from .plots import Limit, Line, Plot
from .run_folder import Run
from .score_figure import score_plot

_UNDRAWN = frozenset({"current_batch_size", "nonfinite_steps"})  # constant; drawn among the gradients if not 0
_MOST_OTHERS = 30  # panels of names that this program does not know
_GRADIENTS = "grad_norm_"
_PARTS = {"dino_head": "DINO head", "ibot_head": "iBOT head"}

LOSSES = (
    PanelPlan("sum of the parts", "loss", (Line("total_loss"),)),
    PanelPlan("optimised objective", "loss", (Line("loss_total_optimized"),)),
    PanelPlan("DINO, global crops", "loss", (Line("dino_global_crops_loss"),)),
    PanelPlan("DINO, local crops", "loss", (Line("dino_local_crops_loss"),)),
    PanelPlan("iBOT", "loss", (Line("ibot_loss"),)),
    PanelPlan("KoLeo", "loss", (Line("koleo_loss"),)),
    PanelPlan("KDE", "loss", (Line("kde_loss"),)),
)
SCHEDULES = (
    PanelPlan(
        "learning rate",
        "learning rate",
        (Line("lr", "others"), Line("last_layer_lr", "last layer", 1)),
        from_zero=True,
        moments=(("warmup", "warm-up ends"), ("freeze_last_layer", "last layer thaws")),
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
            f"{WINDOW} As in DINOv2, KoLeo carries its weight, and KoLeo and iBOT are shown at half of what enters the "
            "optimised objective.",
            make_panels(runs, LOSSES),
        ),
        collapse_plot(runs),
        _gradient_plot(runs),
        Plot(
            "schedules",
            "Schedules",
            f"{WINDOW} The medians trail the schedules by ten iterations. Dotted: ends of what the timeline plans.",
            make_panels(runs, SCHEDULES),
        ),
        Plot(
            "throughput",
            "Throughput",
            "Means of 20 iterations, reported every 10, without evaluations and checkpoints.",
            make_panels(runs, THROUGHPUT),
        ),
    ]
    plots.append(_other_plot(runs, plots))
    return [plot for plot in plots if plot.panels]


def _gradient_plot(runs: Sequence[Run]) -> Plot:
    """Gradient norms, and what float16 and steps that were left out do to gradients."""
    thresholds = [run.settings.values.get("optim.clip_grad") for run in runs]
    above_zero = {float(value) for value in thresholds if isinstance(value, int | float) and value > 0}
    limits = tuple(Limit(value, "clipped above") for value in sorted(above_zero))
    plans = [
        PanelPlan(
            _PARTS.get(part := name.removeprefix(_GRADIENTS), part),
            "gradient norm",
            (Line(name),),
            log=True,
            limits=limits,
        )
        for name in logged_names(runs)
        if name.startswith(_GRADIENTS)
    ]
    plans.append(PanelPlan("loss scale of float16", "scale", (Line("loss_scale"),), log=True))
    if any(run.metrics.last("nonfinite_steps") for run in runs):
        plans.append(PanelPlan("steps left out so far", "steps", (Line("nonfinite_steps"),), from_zero=True))
    caption = f"Norms of the student's parts before clipping. {WINDOW}"
    return Plot("gradients", "Gradients", caption, make_panels(runs, plans))


def _other_plot(runs: Sequence[Run], plots: Sequence[Plot]) -> Plot:
    drawn = {curve.name for plot in plots for curve in plot.curves}
    names = [name for name in logged_names(runs) if name not in drawn | _UNDRAWN]
    plans = [PanelPlan(name.replace("_", " "), "", (Line(name),)) for name in names[:_MOST_OTHERS]]
    rest = f" {len(names) - len(plans):,} more names are not drawn." if len(names) > len(plans) else ""
    return Plot("others", "Other figures", f"Whatever else was logged. {WINDOW}{rest}", make_panels(runs, plans))
