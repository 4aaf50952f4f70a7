"""Submit a cross-validation to SLURM: the options of `dinov2.eval.cross_validate` and those of a job.

python -m dinov2.run.eval.cross_validate --ngpus 4 --config-file FILE --pretrained-weights FILE --output-dir DIR ...
"""

from functools import partial

from dinov2.utils.cli import run_command

from .task import submit_evaluation

main = partial(submit_evaluation, "cross_validate")

if __name__ == "__main__":
    run_command(main)
