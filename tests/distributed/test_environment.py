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


def test_a_step_on_some_nodes_of_the_job_meets_on_its_own_first_node():
    found = detect_environment({**SLURM, "SLURM_JOB_NODELIST": "gpu[01-03]", "SLURM_STEP_NODELIST": "gpu[02-03]"})
    assert (found.master_addr, found.local_world_size) == ("gpu02", 8)


def test_tasks_on_one_node_need_no_name():
    found = detect_environment({**SLURM, "SLURM_STEP_NODELIST": "gpu03"})
    assert (found.master_addr, found.local_world_size) == ("127.0.0.1", 16)


def test_old_and_missing_names_of_the_node_list():
    old = {name: value for name, value in SLURM.items() if name != "SLURM_JOB_NODELIST"}
    assert detect_environment({**old, "SLURM_NODELIST": "b7,b8"}).master_addr == "b7"
    with pytest.raises(UserError, match="SLURM_JOB_NODELIST"):
        detect_environment({**old, "SLURM_STEP_NODELIST": ""})


def test_a_script_that_sbatch_runs_is_alone():
    batch = {name: value for name, value in SLURM.items() if name != "SLURM_STEP_NUM_TASKS"}
    assert detect_environment({**batch, "SLURM_NTASKS": "16"}).launcher == "alone"


def test_port_can_be_chosen():
    assert detect_environment({**SLURM, "MASTER_PORT": "1234"}).master_port == 1234


@pytest.mark.parametrize(
    "variables", [{**TORCHRUN, "RANK": "first"}, {**SLURM, "SLURM_PROCID": ""}, {**SLURM, "MASTER_PORT": "http"}]
)
def test_a_variable_that_is_no_number(variables):
    with pytest.raises(UserError, match="expected a number"):
        detect_environment(variables)


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
        ("host[1-3,5]", ["host1", "host2", "host3", "host5"]),
        ("a[1-2]b[3-4]", ["a1b3", "a1b4", "a2b3", "a2b4"]),
        ("r[01]n[098-101],x[0-1]", ["r01n098", "r01n099", "r01n100", "r01n101", "x0", "x1"]),
        ("gpu-1.cluster.example", ["gpu-1.cluster.example"]),
    ],
)
def test_node_lists(text, nodes):
    assert parse_node_list(text) == nodes


@pytest.mark.parametrize("text", ["", "gpu[1-3", "gpu]1[", "gpu[]", "gpu[a-b]", "gpu[1-]", "gpu[1 - 2]"])
def test_what_is_no_node_list(text):
    with pytest.raises(UserError, match="no list of nodes"):
        parse_node_list(text)
