"""Submit a logistic regression to SLURM: the options of `dinov2.eval.log_regression` and those of a job.

python -m dinov2.run.eval.log_regression --ngpus 4 --config-file FILE --pretrained-weights FILE --output-dir DIR ...
"""

from functools import partial

from dinov2.utils.cli import run_command

from .task import submit_evaluation

main = partial(submit_evaluation, "log_regression")

if __name__ == "__main__":
    run_command(main)
