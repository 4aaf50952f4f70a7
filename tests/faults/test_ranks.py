"""Several processes: one is killed, or there are more or fewer of them the next time."""

import json
import os
import random
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from crashes import STEPS, has_taken, outcome, planned, report_every_step, run, training
from forks import children_of, end, exit_codes, forked, run_training, wait_until
from runs import ELSEWHERE, metrics_of

from dinov2.errors import ExitCode
from dinov2.train import loop as loop_module
from dinov2.train.checkpoint import Checkpointer, SavedCheckpoint, state_digest
from dinov2.train.state import TrainState

# What does not depend on how a batch is divided between ranks: all but KoLeo, which looks for neighbours, and
# dropped branches.
DIVISIBLE = ("dino.koleo_loss_weight=0", "student.drop_path_rate=0", "train.num_workers=0", "train.keep_last=0")
PAIR = ("train.batch_size_per_gpu=2", "train.num_workers=0", "evaluation.eval_period_iterations=0")
ROOT = Path(__file__).resolve().parents[2]
POINTS = ("save.begin", "shard.half_written", "shard.written", "save.before_agreement", "save.before_rename")


@pytest.mark.parametrize(
    "trials",
    [
        pytest.param(3, marks=pytest.mark.thorough),  # 20 s
        pytest.param(10, marks=pytest.mark.slow),  # 1 minute
    ],
)
def test_one_of_two_ranks_killed(image_folder, tmp_path, trials):
    arguments = training(image_folder, tmp_path / "whole", *PAIR)
    assert run(arguments, tmp_path / "logs", ranks=2) == [0, 0]
    expected = outcome(tmp_path / "whole")
    seed = int.from_bytes(os.urandom(3), "little")
    rng = random.Random(seed)
    kills = 0
    for trial in range(trials):
        output, logs = tmp_path / str(trial), tmp_path / f"{trial}.logs"
        arguments = training(image_folder, output, *PAIR)
        for number in range(2):
            codes = kill_one_rank(arguments, logs / str(number), rng)
            kills += -9 in codes
            assert set(codes) <= {-9, int(ExitCode.LOST_RANK), 0}, shown(logs / str(number))
        assert run(arguments, logs / "last", ranks=2) == [0, 0], f"seed {seed}"
        assert outcome(output) == expected, f"seed {seed}"
    print(f"\none of 2 ranks killed {kills} times (seed {seed}): the other ends by itself, bit-exact")
    assert kills >= trials


def shown(logs: Path) -> str:
    return "\n".join(path.read_text()[-3000:] for path in sorted(logs.iterdir()))


def kill_one_rank(arguments: list[str], logs: Path, rng: random.Random) -> list[int | None]:
    """Kill a rank somewhere, by chance inside a save; how both ranks ended."""
    victim = rng.randrange(2)
    if rng.random() < 0.5:
        plan = f"{rng.choice(POINTS[1:4] if victim else POINTS)}=kill@{rng.randint(1, 2)}"
        prepare, steps = planned(plan, ranks=(victim,)), STEPS
    else:
        prepare, steps = report_every_step, rng.randint(1, 4)
    with forked(run_training, arguments, prepare, ranks=2, logs=logs) as processes:
        wait_until(partial(has_taken, steps, processes[victim], logs))
        processes[victim].join(rng.uniform(0, 0.2))
        processes[victim].kill()
        return exit_codes(processes, timeout=120)


class Part(NamedTuple):
    """How a part of a training is run."""

    ranks: int
    strategy: str


ALONE = Part(1, "NO_SHARD")
CHANGES = [
    [Part(1, "NO_SHARD"), Part(2, "NO_SHARD"), Part(1, "NO_SHARD")],
    [Part(2, "FULL_SHARD"), Part(1, "NO_SHARD"), Part(2, "SHARD_GRAD_OP")],
    pytest.param([Part(2, "SHARD_GRAD_OP"), Part(2, "NO_SHARD"), Part(2, "FULL_SHARD")], marks=pytest.mark.thorough),
    # 30 s
    pytest.param([Part(2, "NO_SHARD"), Part(4, "FULL_SHARD"), Part(1, "NO_SHARD")], marks=pytest.mark.thorough),
    pytest.param([Part(4, "SHARD_GRAD_OP"), Part(2, "FULL_SHARD"), Part(4, "NO_SHARD")], marks=pytest.mark.slow),
]


@pytest.fixture
def alone(image_folder, tmp_path) -> list[dict]:
    """Metrics of one process that is not interrupted."""
    assert run(divided(image_folder, tmp_path / "alone", ALONE), tmp_path / "logs") == [0]
    return metrics_of(tmp_path / "alone")


@pytest.mark.parametrize("parts", CHANGES)
def test_other_ranks_and_other_sharding(image_folder, tmp_path, alone, parts):
    """A training in three parts of four steps each."""
    output = tmp_path / "run"
    for number, part in enumerate(parts, start=1):
        # After two saves of this part, and the one of what was loaded.
        plan = "" if number == 3 else f"save.after_parent_fsync=kill@{2 if number == 1 else 3}"
        prepare = partial(observed, plan, output)
        codes = run(divided(image_folder, output, part), tmp_path / f"logs{number}", ranks=part.ranks, prepare=prepare)
        assert codes[0] == (-9 if plan else 0)
    for step in (4, 8):
        assert digest_of(output / "loaded", step) == digest_of(output / "checkpoints", step)
    for step in range(STEPS):
        assert positions(output, step) == list(range(4 * step, 4 * step + 4))
    found = metrics_of(output)
    worst = max(abs(a["total_loss"] / b["total_loss"] - 1) for a, b in zip(found, alone, strict=True))
    shown = " -> ".join(f"{part.ranks} x {part.strategy}" for part in parts)
    print(f"\n{shown}: state bitwise equal after loading, same tiles, losses within {worst:.1e} of one process")
    assert worst < 1e-5


def divided(images: Path, output: Path, part: Part) -> list[str]:
    """A training of four tiles a step."""
    sharding = [
        f"compute_precision.{network}.{module}.sharding_strategy={part.strategy}"
        for network in ("student", "teacher")
        for module in ("backbone", "dino_head", "ibot_head")
    ]
    return training(images, output, *DIVISIBLE, *sharding, f"train.batch_size_per_gpu={4 // part.ranks}")


def observed(plan: str, output: Path, rank: int) -> None:
    """Write down the positions of every step, and save what was loaded once more as it is."""
    planned(plan)(rank)
    step, load = loop_module.train_step, TrainState.load

    def noted(cfg, state, batches, *args, **options):
        for batch in batches:
            (output / f"step{state.iteration}.rank{rank}").write_text(json.dumps(batch["positions"].tolist()))
        return step(cfg, state, batches, *args, **options)

    def load_and_save(state, saved):
        load(state, saved)
        Checkpointer(output / "loaded", keep_last=0).save(state.snapshot(), state.iteration)

    loop_module.train_step, TrainState.load = noted, load_and_save


def digest_of(folder: Path, step: int) -> str:
    """Of all that a checkpoint holds but the settings, where the sharding stands."""
    saved = SavedCheckpoint(folder / f"step-{step:07d}", step)
    return state_digest(saved.read_all(), {**saved.values, "settings": None})


def positions(output: Path, step: int) -> list[int]:
    """Places in the stream of samples that the ranks have taken in a step."""
    return sorted(number for path in output.glob(f"step{step}.rank*") for number in json.loads(path.read_text()))


@pytest.mark.thorough  # 40 s: torchrun starts processes that import torch
def test_torchrun_starts_again_what_lost_a_rank(image_folder, tmp_path):
    """Twice, in one job: each time the ranks meet anew, and they end as if nothing had been."""
    options = [ELSEWHERE, *PAIR]
    assert run(training(image_folder, tmp_path / "whole", *options), tmp_path / "logs", ranks=2) == [0, 0]
    output = tmp_path / "run"
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "--max-restarts=2"]
    with (tmp_path / "log").open("w") as log:
        torchrun = subprocess.Popen(
            [*launcher, "dinov2/train/train.py", *training(image_folder, output, *options)],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=log,
            stderr=log,
        )
    try:
        for step in (2, 6):
            wait_until((output / "checkpoints" / f"step-{step:07d}").exists, 120)
            os.kill(children_of(torchrun.pid)[-1], 9)
        assert torchrun.wait(240) == 0, (tmp_path / "log").read_text()[-3000:]
    finally:
        for process in [torchrun.pid, *children_of(torchrun.pid)]:
            end(process)
    assert outcome(output).state == outcome(tmp_path / "whole").state
