"""Requests to a cluster: nothing gets into a batch script that could mean more than it says."""

import pytest

from dinov2.errors import UserError
from dinov2.utils.cluster import JobRequest, check_job_folder

HOSTILE = [
    "",
    " ",
    "x; rm -rf /",
    "$(reboot)",
    "`reboot`",
    "a\nreboot",
    "a\n#SBATCH --uid=0",
    "a'b",
    'a"b',
    "a\\",
    "é\u2028b",
]


@pytest.mark.parametrize("option", ["name", "comment", "exclude", "partition", "account", "qos", "constraint"])
@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_texts(option, text):
    with pytest.raises(UserError, match=f"--{option} "):
        JobRequest(**{"name": "job", option: text})


@pytest.mark.parametrize(
    ("option", "text"),
    [
        ("name", "dinov2:train"),
        ("comment", "deadline: MICCAI (v2), 50% done"),
        ("exclude", "gpu[01-03,7],login"),
        ("partition", "a100,h100-long"),
        ("account", "group.pathology@site"),
        ("constraint", "nvlink&(ib|roce)"),
    ],
)
def test_ordinary_texts(option, text):
    assert text in JobRequest(**{"name": "job", option: text}).slurm_parameters().values()


@pytest.mark.parametrize(
    ("option", "flag", "value"),
    [
        ("nodes", "--nodes", 0),
        ("gpus_per_node", "--ngpus", -1),
        ("cpus_per_task", "--cpus-per-task", 0),
        ("mem_gb", "--mem-gb", -1),
        ("timeout", "--timeout", 0),
    ],
)
def test_numbers_that_make_no_sense(option, flag, value):
    with pytest.raises(UserError, match=f"{flag} {value}: expected"):
        JobRequest("job", **{option: value})


@pytest.mark.parametrize("folder", ["", "run\nreboot", "run/%x", "run\\", "run/%%j", "run\x1b[2J"])
def test_folders_that_are_refused(folder):
    with pytest.raises(UserError, match="--output-dir"):
        check_job_folder(folder)


@pytest.mark.parametrize("folder", ["run", "/data/läufe/vit l/%j", "run $(x)"])
def test_folders_that_are_fine(folder):
    check_job_folder(folder)


def test_this_machine_is_one_node():
    assert JobRequest("job", gpus_per_node=0).local_parameters()["tasks_per_node"] == 1
    with pytest.raises(UserError, match="--cluster slurm"):
        JobRequest("job", nodes=2).local_parameters()
