"""Who am I: torchrun before SLURM before alone."""

import pytest

from dinov2.distributed import detect_environment
from dinov2.distributed.environment import parse_node_list
from dinov2.errors import UserError

TORCHRUN = {
    "MASTER_ADDR": "host",
    "MASTER_PORT": "29500",
    "RANK": "3",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
}
SLURM = {
    "SLURM_JOB_ID": "17",
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "16",
    "SLURM_LOCALID": "1",
    "SLURM_JOB_NODELIST": "gpu[02-03]",
}


def test_alone():
    assert detect_environment({}).launcher == "alone"
    assert detect_environment({"MASTER_PORT": "1"}).launcher == "alone"  # set by many clusters, says nothing


def test_torchrun_wins_inside_an_allocation():
    found = detect_environment({**SLURM, **TORCHRUN})
    assert (found.launcher, found.rank, found.world_size, found.local_rank, found.local_world_size) == (
        "torchrun",
        3,
        8,
        1,
        2,
    )
    assert (found.master_addr, found.master_port) == ("host", 29500)


def test_slurm():
    found = detect_environment(SLURM)
    assert (found.launcher, found.rank, found.world_size, found.local_rank, found.local_world_size) == (
        "slurm",
        5,
        16,
        1,
        8,
    )
    assert found.master_addr == "gpu02"
    assert found.master_port == detect_environment({**SLURM, "SLURM_PROCID": "6"}).master_port
    assert detect_environment({**SLURM, "SLURM_STEP_NUM_TASKS": "1"}).launcher == "alone"


def test_half_a_torchrun_is_an_error():
    with pytest.raises(UserError, match="LOCAL_RANK"):
        detect_environment({"RANK": "0", "WORLD_SIZE": "2"})


@pytest.mark.parametrize(
    ("text", "nodes"),
    [
        ("host", ["host"]),
        ("a,b", ["a", "b"]),
        ("gpu[1-3,5]", ["gpu1", "gpu2", "gpu3", "gpu5"]),
        ("gpu[08-10]", ["gpu08", "gpu09", "gpu10"]),
        ("a[1-2]-ib,login,b[7]", ["a1-ib", "a2-ib", "login", "b7"]),
    ],
)
def test_node_lists(text, nodes):
    assert parse_node_list(text) == nodes
