"""The configuration of a run beside the defaults and beside those of other runs."""

from collections.abc import Mapping, Sequence
from typing import Any

from dinov2.configs.merge import DEFAULT_FILE

from .run_folder import Run
from .settings import read_settings
from .table import Table

ABSENT = "(absent)"  # shown for a key that a run or the defaults do not have
PLACES = ("train.output_dir",)  # settings that differ between any two runs


def settings_tables(runs: Sequence[Run]) -> list[Table]:
    """Settings in which the runs differ, and those of each run that are not the defaults of this version."""
    known = [run for run in runs if run.settings.values]
    tables = []
    if len(known) > 1:
        header = ("setting", *(run.label for run in known))
        rows = differences([run.settings.values for run in known])
        tables.append(Table("Where the runs differ", header, rows))
    defaults = read_settings(DEFAULT_FILE).values
    for run in known:
        rows = differences([run.settings.values, defaults])
        caption = f"Where {run.label} differs from the defaults"
        tables.append(Table(caption, ("setting", run.label, "default"), rows, folded=len(known) > 1))
    return tables


def differences(columns: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """(name, one text for each column) of every setting that is not the same in all columns."""
    names = sorted(set().union(*columns).difference(PLACES))
    rows = [(name, [column.get(name, ABSENT) for column in columns]) for name in names]
    return [(name, *map(_shown, values)) for name, values in rows if any(value != values[0] for value in values)]


def _shown(value: Any) -> str:
    """A value as it stands in a configuration."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)
