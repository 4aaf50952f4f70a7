"""TensorBoard and Weights & Biases: one run for one training, and no error of theirs ends it."""

import json
import logging
import sys
from types import ModuleType, SimpleNamespace

import pytest
from omegaconf import OmegaConf

from dinov2.configs import complete_config
from dinov2.errors import UserError
from dinov2.logging import make_sinks, sinks
from dinov2.logging.metrics_file import METRICS_FILE, last_iteration
from dinov2.train.run_folder import set_aside


class StandIn(ModuleType):
    """The package as far as it is called; writes down how."""

    def __init__(self):
        super().__init__("wandb")
        self.calls, self.steps = [], []
        self.server_step = 0
        self.fails_at, self.held = set(), set()

    def teardown(self):
        self.held.clear()

    def init(self, **given):
        self.calls.append(given)
        if given["id"] in self.held:
            raise RuntimeError("run ID is in use")
        if (given["mode"] or "online") in self.fails_at:
            self.held.add(given["id"])
            raise ConnectionError("no route to host")
        number = given["id"] or f"new{len(self.calls)}"
        return SimpleNamespace(id=number, step=self.server_step, log=self.log, finish=self.finish)

    def log(self, values, step):
        if "log" in self.fails_at:
            raise BrokenPipeError("the service has gone")
        self.steps.append((step, *values))

    def finish(self):
        if "finish" in self.fails_at:
            raise TimeoutError("still uploading")


@pytest.fixture
def wandb(monkeypatch, tmp_path):
    stand_in = StandIn()
    monkeypatch.setitem(sys.modules, "wandb", stand_in)
    for name in ("MODE", "API_KEY", "PROJECT", "RUN_ID", "RESUME", "DIR", "DISABLED", "BASE_URL", "FINISH_TIMEOUT"):
        monkeypatch.delenv(f"WANDB_{name}", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    return stand_in


DEFAULTS = complete_config(OmegaConf.create({}))


def connect(folder, start=0, **of_wandb):
    return make_sinks(OmegaConf.merge(DEFAULTS, {"wandb": {"enable": True, **of_wandb}}), folder, start=start)


@pytest.mark.parametrize(
    ("variables", "mode"),
    [
        ({}, "offline"),
        ({"WANDB_API_KEY": "0" * 40}, None),
        ({"WANDB_MODE": "dryrun", "WANDB_API_KEY": "0" * 40}, None),
        ({"WANDB_MODE": "online"}, None),
        ({"WANDB_DISABLED": "true", "WANDB_API_KEY": "0" * 40}, "disabled"),
        ({"WANDB_DISABLED": "false"}, "offline"),
        ({"netrc": "api.wandb.ai"}, None),
        ({"netrc": "wandb.hospital.org", "WANDB_BASE_URL": "https://wandb.hospital.org"}, None),
        ({"netrc": "github.com"}, "offline"),
    ],
)
def test_its_own_variables_and_logins_say_whether_it_is_online(wandb, monkeypatch, tmp_path, variables, mode):
    for name, value in variables.items():
        if name == "netrc":
            (tmp_path / "netrc").write_text(f"machine {value}\n  login user\n  password {'0' * 40}\n")
            (tmp_path / "netrc").chmod(0o600)
        else:
            monkeypatch.setenv(name, value)
    connect(tmp_path)
    assert wandb.calls[0]["mode"] == mode


def test_what_the_configuration_leaves_open_is_left_to_its_variables(wandb, monkeypatch, tmp_path):
    connect(tmp_path)
    named = ("project", "entity", "name", "group", "tags", "id", "resume")
    assert {wandb.calls[0][name] for name in named} == {None}
    assert wandb.calls[0]["dir"] == str(tmp_path)
    monkeypatch.setenv("WANDB_DIR", "/scratch")
    connect(tmp_path, project="p", username="us", exp_name="e", tags=["a", "b"])
    assert [wandb.calls[1][name] for name in (*named[:3], "tags", "dir")] == ["p", "us", "e", ["a", "b"], "/scratch"]
    connect(tmp_path, dir="/elsewhere")
    assert wandb.calls[2]["dir"] == "/elsewhere"


@pytest.mark.parametrize(
    ("variables", "of_wandb", "expected"),
    [
        ({}, {}, ("new1", "allow")),
        ({"WANDB_RUN_ID": "mine"}, {}, ("mine", "allow")),
        ({"WANDB_RUN_ID": "mine", "WANDB_RESUME": "must"}, {}, ("mine", None)),
        ({"WANDB_RESUME": "never"}, {}, (None, None)),
        ({"WANDB_RUN_ID": "mine"}, {"resume_id": "theirs"}, ("theirs", "must")),
    ],
)
def test_a_training_that_goes_on_is_the_same_run(wandb, monkeypatch, tmp_path, variables, of_wandb, expected):
    connect(tmp_path)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    connect(tmp_path, **of_wandb)
    assert (wandb.calls[1]["id"], wandb.calls[1]["resume"]) == expected
    if expected[0] not in (None, "new1"):  # what it was called last is what it goes on as
        monkeypatch.delenv("WANDB_RUN_ID", raising=False)
        monkeypatch.delenv("WANDB_RESUME", raising=False)
        connect(tmp_path)
        assert wandb.calls[2]["id"] == expected[0]


def test_a_training_that_starts_over_is_another_run(wandb, tmp_path):
    connect(tmp_path)
    set_aside(tmp_path)
    connect(tmp_path)
    assert wandb.calls[1]["id"] is None


def test_an_id_that_a_crash_has_cut_is_none(wandb, tmp_path):
    (tmp_path / "wandb_run_id.txt").write_text("")
    connect(tmp_path)
    assert wandb.calls[0]["id"] is None


@pytest.mark.parametrize(("fails_at", "tries", "num_sinks"), [({"online"}, 2, 1), ({"online", "offline"}, 2, 0)])
def test_without_a_network_it_is_offline_or_nothing(wandb, monkeypatch, tmp_path, caplog, fails_at, tries, num_sinks):
    connect(tmp_path, project="p")
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    wandb.fails_at = fails_at
    assert len(connect(tmp_path, project="p")) == num_sinks
    assert [call["mode"] for call in wandb.calls[1:]] == [None, "offline"][:tries]
    assert {call["id"] for call in wandb.calls[1:]} == {"new1"}
    assert "no route to host" in caplog.text and "wandb sync" in caplog.text


def test_a_broken_installation_is_no_end(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it raises
    assert connect(tmp_path) == []
    assert "Weights & Biases" in caplog.text and "Training goes on" in caplog.text


@pytest.mark.parametrize("fails_at", ["log", "finish"])
def test_an_error_while_it_logs_is_said_once(wandb, tmp_path, caplog, fails_at):
    caplog.set_level(logging.WARNING)
    wandb.fails_at = {fails_at}
    (sink,) = connect(tmp_path)
    for iteration in range(3):
        sink.log({"loss": 1.0}, iteration)
    sink.close()
    sink.close()
    assert len(caplog.records) == 1
    assert METRICS_FILE in caplog.text


def report(folder, sink, iterations):
    """As a training does: to the file first."""
    with (folder / METRICS_FILE).open("a") as file:
        for iteration in iterations:
            file.write(json.dumps({"iteration": iteration}) + "\n")
            sink.log({"train/loss": 1.0}, iteration)


@pytest.mark.parametrize("server_step", [0, 58])  # recorded offline, or online: the step that comes next
def test_steps_of_a_training_that_crashed_do_not_go_back(wandb, tmp_path, server_step):
    (sink,) = connect(tmp_path)
    report(tmp_path, sink, range(58))
    wandb.server_step = server_step
    (sink,) = connect(tmp_path, start=50)  # its checkpoint
    sink.log({"tune/teacher.bacc_20": 0.9}, 49)  # of an evaluation that was broken off
    report(tmp_path, sink, range(50, 70))
    steps = [step for step, _ in wandb.steps]
    assert steps == [*range(58), 58, *range(58, 70)]
    assert wandb.steps[58] == (58, "tune/teacher.bacc_20")


def test_a_first_run_in_a_folder_with_metrics_has_all_its_steps(wandb, tmp_path):
    report(tmp_path, SimpleNamespace(log=lambda *given: None), range(58))
    (sink,) = connect(tmp_path, start=50)
    report(tmp_path, sink, range(50, 70))
    assert [step for step, _ in wandb.steps] == [*range(50, 70)]


@pytest.mark.parametrize("has_folder", [False, True])
def test_a_package_that_is_missing_is_told_also_beside_a_folder_of_earlier_runs(monkeypatch, tmp_path, has_folder):
    if has_folder:
        (tmp_path / "wandb" / "run-1").mkdir(parents=True)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(UserError, match="pip install wandb"):
        sinks.check_sinks(OmegaConf.merge(DEFAULTS, {"wandb": {"enable": True}}))


def test_only_the_first_rank_has_sinks(wandb, monkeypatch, tmp_path):
    monkeypatch.setattr(sinks, "is_main_process", lambda: False)
    assert connect(tmp_path) == []
    assert wandb.calls == []


@pytest.mark.parametrize("start", [50, 0])
def test_tensorboard_has_every_step_once_after_a_crash(tmp_path, start):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    cfg = OmegaConf.merge(DEFAULTS, {"tensorboard": {"enable": True}})
    for first, last in ((0, 58), (start, 70)):
        (sink,) = make_sinks(cfg, tmp_path, start=first)
        for iteration in range(first, last):
            sink.log({"train/loss": float(last)}, iteration)
        sink.close()
    events = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    found = events.Scalars("train/loss")
    assert [event.step for event in found] == [*range(70)]
    assert [event.value for event in found[start:]] == [70.0] * (70 - start)


def test_the_last_iteration_of_a_file_that_was_cut(tmp_path):
    assert last_iteration(tmp_path / METRICS_FILE) == -1
    (tmp_path / METRICS_FILE).write_text('{"iteration": 3}\n{"iteration": 13}\n{"iterat')
    assert last_iteration(tmp_path / METRICS_FILE) == 13
