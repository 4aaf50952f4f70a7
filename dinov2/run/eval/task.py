"""An evaluation command as a job."""

import argparse
from importlib import import_module

from dinov2.eval.arguments import check_arguments, make_parser
from dinov2.run.submit import Task, get_args_parser, report, submit_jobs


class EvaluationTask(Task):
    """One of the commands `python -m dinov2.eval.{args.evaluation}`."""

    @property
    def program(self) -> str:
        """What torchrun would be given."""
        return f"-m dinov2.eval.{self.args.evaluation}"

    def run(self, args: argparse.Namespace) -> None:
        """Evaluate."""
        import_module(f"dinov2.eval.{args.evaluation}").main(args)


def submit_evaluation(name: str, arguments: list[str] | None = None) -> int:
    """Check what an evaluation is asked for, and submit it.

    Args:
        name: of a module of dinov2.eval, which has the options beside those of a job.
    Raises:
        UserError: for settings that are not right, or where there is no SLURM.
    """
    parser = get_args_parser(description=f"Submit dinov2.eval.{name}", parents=[make_parser(name, add_help=False)])
    args = parser.parse_intermixed_args(arguments)
    check_arguments(args, files=False)  # a mistake is found before the job has waited for its turn
    from dinov2.eval.setup import read_settings

    read_settings(args)
    job = submit_jobs(EvaluationTask, args, name=f"dinov2:{name}")
    if job is not None:
        report(job, args.cluster)
    return 0
