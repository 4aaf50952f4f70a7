"""The curves of a run as one picture: losses, k-NN accuracy, learning rate."""

import json
from pathlib import Path
from typing import Any

LOSSES = ("dino_local_crops_loss", "dino_global_crops_loss", "koleo_loss", "ibot_loss")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file with one JSON object a line; none if there is no such file."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def plot_curves(output_dir: Path, picture: Path) -> None:
    """Draw the metrics of a run folder into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    metrics = read_lines(output_dir / "training_metrics.json")
    tuning = read_lines(output_dir / "results" / "tune.jsonl")
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    _plot_losses(axes[0], metrics)
    _plot_accuracy(axes[1], tuning)
    _plot_speed(axes[2], metrics)
    for axis in axes:
        axis.set_xlabel("iteration")
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    picture.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(picture, dpi=120)
    pyplot.close(figure)


def _plot_losses(axis: Any, metrics: list[dict[str, Any]]) -> None:
    iterations = [line["iteration"] for line in metrics]
    for name in (name for name in LOSSES if metrics and name in metrics[0]):
        axis.plot(iterations, [line[name] for line in metrics], label=name.removesuffix("_loss").replace("_", " "))
    axis.set_title("losses (median of 20 iterations)")
    if metrics:
        axis.legend(frameon=False, fontsize=8)


def _plot_accuracy(axis: Any, tuning: list[dict[str, Any]]) -> None:
    axis.set_title("k-NN balanced accuracy [%]")
    names = [name for name in (tuning[0] if tuning else {}) if ".bacc_" in name]
    if not names:
        axis.text(0.5, 0.5, "no labelled tiles given", ha="center", transform=axis.transAxes)
        return
    largest = max(names, key=lambda name: int(name.rsplit("_", 1)[1])).rsplit("_", 1)[1]
    for network in ("teacher", "student"):
        values = [100 * line[f"{network}.bacc_{largest}"] for line in tuning]
        axis.plot([line["iteration"] for line in tuning], values, marker="o", label=f"{network}, k = {largest}")
    axis.set_ylim(0, 100)
    axis.legend(frameon=False, fontsize=8)


def _plot_speed(axis: Any, metrics: list[dict[str, Any]]) -> None:
    axis.plot(
        [line["iteration"] for line in metrics], [line["tiles_per_second"] for line in metrics], color="tab:green"
    )
    axis.set_ylim(bottom=0)
    axis.set_title("tiles per second")
