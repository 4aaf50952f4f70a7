"""Submitting a command of this project to SLURM through submitit.

A job that is asked to stop, shortly before its time is over or because another one needs its place, saves its state
and goes back to the queue; when its turn comes it goes on where it was. Exactly one requeues it. Where it is asked
by submitit's signal, USR2, submitit does, called when the state is saved. SIGTERM comes from SLURM when it preempts
the job, and then SLURM requeues it, provided that it has not ended by itself; or from `scancel`, and then nobody does.
"""

import argparse
import copy
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dinov2.errors import UserError
from dinov2.utils.cli import Parser
from dinov2.utils.cluster import JobRequest, check_job_folder

if TYPE_CHECKING:  # heavy, and needed only where jobs are submitted
    import submitit

MAX_TIMEOUTS = 100  # times that a job may use up its time and go on
GRACE = 600  # seconds that SLURM may take to end a job after it has sent SIGTERM


def get_args_parser(
    description: str | None = None,
    parents: Sequence[argparse.ArgumentParser] = (),
    add_help: bool = True,
) -> argparse.ArgumentParser:
    """The options of a job, beside those of the command that `parents` describe."""
    parser = Parser(description=description, parents=parents, add_help=add_help, allow_abbrev=False)
    add = parser.add_argument_group("job").add_argument
    add("--nodes", "--nnodes", type=int, default=1, metavar="N", help="nodes (default: 1)")
    add("--ngpus", "--gpus", "--gpus-per-node", type=int, default=8, metavar="N", help="GPUs a node (default: 8)")
    add("--cpus-per-task", type=int, default=10, metavar="N", help="CPU cores for each GPU (default: 10)")
    add("--mem-gb", type=int, default=0, metavar="N", help="memory of each node in GB (default: all it has)")
    add("--timeout", type=int, default=2800, metavar="MIN", help="minutes after which it is requeued (default: 2800)")
    add("--partition", metavar="NAME", help="partition (default: the cluster's)")
    add("--account", metavar="NAME", help="account that is charged")
    add("--qos", metavar="NAME", help="quality of service")
    add("--constraint", metavar="FEATURES", help="features that nodes must have")
    add("--use-volta32", dest="constraint", action="store_const", const="volta32gb", help="--constraint volta32gb")
    add("--exclude", metavar="NODES", help="nodes to stay away from")
    add("--comment", metavar="TEXT", help="remark that SLURM shows")
    add("--cluster", choices=("slurm", "local", "debug"), default="slurm", help="local: here; debug: in this process")
    add("--dry-run", action="store_true", help="print the batch script and submit nothing")
    return parser


class Task:
    """A command as submitit runs it: in every process of a job, and again after the job was requeued.

    A subclass says what the command is.
    """

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args

    @property
    def program(self) -> str:
        """What torchrun would be given to run the command here."""
        raise NotImplementedError

    def run(self, args: argparse.Namespace) -> None:
        """The command itself; `%j` in its output folder is replaced by the id of the job."""
        raise NotImplementedError

    def __call__(self) -> None:
        """Run the command; requeue the job if submitit asked it to stop."""
        import submitit

        from dinov2.train.preemption import Interrupted

        job = submitit.JobEnvironment()
        args = copy.copy(self.args)
        args.output_dir = str(args.output_dir).replace("%j", job.job_id)
        _join_other_tasks(job)
        requeue_signal = signal.Signals[f"SIG{job.USR_SIG}"]
        requeue = signal.getsignal(requeue_signal)
        try:
            self.run(args)
        except Interrupted as interrupted:
            if requeue_signal in interrupted.signals and callable(requeue):
                _requeue(requeue, requeue_signal)
            if job.cluster == "slurm":
                _wait_for_the_end()
            raise

    def checkpoint(self) -> "submitit.helpers.DelayedSubmission":
        """What runs after the job was requeued; the name is submitit's."""
        import submitit

        args = copy.copy(self.args)
        args.no_resume = False
        return submitit.helpers.DelayedSubmission(type(self)(args))


def _join_other_tasks(job: "submitit.JobEnvironment") -> None:
    """Tell torch about the other processes of the job."""
    import submitit

    if job.num_tasks > 1:
        submitit.helpers.TorchDistributedEnvironment().export(set_cuda_visible_devices=False, overwrite=True)
        if job.num_nodes == 1:
            os.environ["MASTER_ADDR"] = "127.0.0.1"  # the name of a machine need not lead to it


def _requeue(requeue: Callable[..., Any], number: signal.Signals) -> None:
    """Let submitit's handler requeue the job from its first process, which ends there; all others end in peace."""
    requeue(number, None)
    sys.exit(0)


def _wait_for_the_end() -> None:
    """Leave it to SLURM to end the job; submitit's handlers are back and hear what comes."""
    for _ in range(GRACE):
        time.sleep(1.0)  # a signal that another thread has received is handled when a sleep ends


def submit_jobs(task_class: type[Task], args: argparse.Namespace, name: str) -> "submitit.Job | None":
    """Submit a command as one job.

    Args:
        args: of a parser that `get_args_parser` made.
        name: of the job.
    Returns:
        The job; None if only the script was asked for.
    Raises:
        UserError: for options that are not right, or where there is no SLURM.
    """
    request = job_request(args, name)
    check_job_folder(args.output_dir)
    task = task_class(copy.copy(args))
    task.args.output_dir = str(Path(args.output_dir).expanduser().absolute())
    if args.dry_run:
        sys.stdout.write(batch_script(_folder_of_jobs(task.args), request))
        return None
    return _make_executor(args.cluster, _folder_of_jobs(task.args), request, task.program).submit(task)


def _folder_of_jobs(args: argparse.Namespace) -> Path:
    """Where scripts, pickled tasks and outputs of jobs go."""
    from submitit.core.utils import JobPaths

    # Only SLURM makes folders that are named by the id of the job.
    output = args.output_dir if args.cluster == "slurm" else JobPaths.get_first_id_independent_folder(args.output_dir)
    return Path(output, "slurm")


def report(job: "submitit.Job", cluster: str) -> None:
    """Say where a submitted job writes to; wait for one on this machine.

    Raises:
        UserError: if that job does not finish.
    """
    sys.stdout.write(f"job {job.job_id}; it writes to {job.paths.stdout} and {job.paths.stderr}\n")
    sys.stdout.flush()
    if cluster == "debug":
        job.results()  # runs here and now, and opens a debugger where it fails
    elif cluster == "local" and (error := job.exception()):
        raise UserError(f"job {job.job_id} has not finished: {error}")


def job_request(args: argparse.Namespace, name: str) -> JobRequest:
    """The request that the options describe."""
    return JobRequest(
        name=name,
        nodes=args.nodes,
        gpus_per_node=args.ngpus,
        cpus_per_task=args.cpus_per_task,
        mem_gb=args.mem_gb,
        timeout=args.timeout,
        partition=args.partition,
        account=args.account,
        qos=args.qos,
        constraint=args.constraint,
        exclude=args.exclude,
        comment=args.comment,
    )


def batch_script(folder: Path, request: JobRequest) -> str:
    """The script that would be given to sbatch; made without SLURM."""
    from submitit.slurm.slurm import SlurmExecutor

    class ScriptWriter(SlurmExecutor):
        @classmethod
        def affinity(cls) -> int:
            return 2  # whether srun is installed does not matter here

    executor = ScriptWriter(folder)
    executor.update_parameters(**request.slurm_parameters())
    return executor._make_submission_file_text(executor._submitit_command_str, uid="")


def _make_executor(cluster: str, folder: Path, request: JobRequest, program: str) -> "submitit.Executor":
    import submitit

    if cluster == "debug":
        return submitit.DebugExecutor(folder)
    if cluster == "local":
        local = submitit.LocalExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
        local.update_parameters(**request.local_parameters())
        return local
    missing = [program for program in ("sbatch", "srun") if shutil.which(program) is None]
    if missing:
        raise UserError(
            f"{' and '.join(missing)} not found: this machine belongs to no SLURM cluster. Run it here with torchrun "
            f"--nproc_per_node={request.tasks_per_node} {program} and the same options but those of a job; --dry-run "
            "shows what would be submitted"
        )
    slurm = submitit.SlurmExecutor(folder, max_num_timeout=MAX_TIMEOUTS)
    slurm.update_parameters(**request.slurm_parameters())
    return slurm
