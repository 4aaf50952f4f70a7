"""Whether a folder is that of a training; found out before NumPy and matplotlib are imported."""

from pathlib import Path

from dinov2.errors import UserError

METRICS, TIMELINE = "training_metrics.json", "timeline.json"
_SHOWN = 8  # names of a foreign folder in its message


def check_is_run(folder: Path) -> None:
    """Refuse a folder that no training has written to.

    Raises:
        UserError: says what is missing, and where it is instead.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder; expected the --output-dir of a training")
    if any((folder / name).is_file() for name in (METRICS, TIMELINE)):
        return
    names = sorted(path.name for path in folder.iterdir())
    found = ", ".join(names[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "") if names else "nothing"
    inside = sorted(path.parent for path in folder.glob(f"*/{METRICS}"))
    hint = f"did you mean {' or '.join(map(str, inside[:3]))}?" if inside else "Name the --output-dir of a training"
    raise UserError(
        f"{folder} has neither {METRICS} nor {TIMELINE}, so no training has begun here; found {found}. {hint}"
    )
