"""Submit a training to SLURM.

    python -m dinov2.run.train.train --nodes 2 --ngpus 8 --config-file FILE --output-dir FOLDER [key=value ...]

takes the options of dinov2/train/train.py and those of a job. The job goes on by itself where it was when its time
is over or another job takes its place.
"""

import argparse
import os

from dinov2.run.submit import Task, get_args_parser, report, submit_jobs
from dinov2.train.arguments import check_arguments
from dinov2.train.arguments import get_args_parser as get_train_args_parser
from dinov2.utils.cli import run_command


class TrainingTask(Task):
    """The training command."""

    @property
    def program(self) -> str:
        """What torchrun would be given."""
        return "dinov2/train/train.py"

    def run(self, args: argparse.Namespace) -> None:
        """Train; after SLURM has begun the job again, go on."""
        from dinov2.train.train import main as train_main

        if int(os.environ.get("SLURM_RESTART_COUNT", 0)) > 0:
            args.no_resume = False
        train_main(args)


def main(arguments: list[str] | None = None) -> int:
    """Check what is asked for, and submit it."""
    # Threads that wait for each other must not spin; the job's processes inherit this (see dinov2/train/train.py).
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    parser = get_args_parser(description="Submit a DINOv2 training", parents=[get_train_args_parser(add_help=False)])
    args = parser.parse_intermixed_args(arguments)
    check_arguments(args, files=False)  # a mistake is found before the job has waited for its turn
    job = submit_jobs(TrainingTask, args, name="dinov2:train")
    if job is not None:
        report(job, args.cluster)
    return 0


if __name__ == "__main__":
    # Under the module's own name, by which a job's processes find the task that they unpickle.
    from dinov2.run.train.train import main as main_by_name

    run_command(main_by_name)
