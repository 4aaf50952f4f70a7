"""An evaluation command as a job."""

import argparse
from importlib import import_module
from types import ModuleType

from dinov2.errors import UserError
from dinov2.run.submit import Task, get_args_parser, report, submit_jobs


class EvaluationTask(Task):
    """One of the commands `python -m dinov2.eval.{args.evaluation}`."""

    @property
    def program(self) -> str:
        """What torchrun would be given."""
        return f"-m dinov2.eval.{self.args.evaluation}"

    def run(self, args: argparse.Namespace) -> None:
        """Evaluate."""
        _command(args.evaluation).main(args)


def submit_evaluation(name: str, arguments: list[str] | None = None) -> int:
    """Check what an evaluation is asked for, and submit it.

    Args:
        name: of a module of dinov2.eval, which has the options beside those of a job.
    Raises:
        UserError: for settings that are not right, or where there is no SLURM.
    """
    from dinov2.eval.setup import read_settings

    options = _command(name).get_args_parser(add_help=False)
    parser = get_args_parser(description=f"Submit dinov2.eval.{name}", parents=[options])
    args = parser.parse_intermixed_args(arguments)
    args.evaluation = name
    keys, _ = read_settings(args)  # a mistake is found before the job has waited for its turn
    if not keys.data.query_dataset:
        raise UserError("there is nothing to learn from: name labelled tiles with --train-dataset")
    job = submit_jobs(EvaluationTask, args, name=f"dinov2:{name}")
    if job is not None:
        report(job, args.cluster)
    return 0


def _command(name: str) -> ModuleType:
    return import_module(f"dinov2.eval.{name}")
