"""Processes that meet: whatever an earlier round has left, and with a word for whom they wait."""

import logging
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
import torch.distributed as dist
from ranks import free_port

from dinov2.distributed import LaunchEnvironment, meeting, whereabouts
from dinov2.distributed.environment import detect_environment
from dinov2.distributed.meeting import meet, rank_list
from dinov2.distributed.whereabouts import Whereabouts
from dinov2.errors import ExitCode, LostRankError, UserError

AGENT = {"TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "none"}
SHORT, LONG = timedelta(seconds=0.5), timedelta(seconds=60)


@pytest.fixture(autouse=True)
def hasty(monkeypatch):
    monkeypatch.setattr(meeting, "FIRST_NOTICE", 0.1)
    monkeypatch.setattr(meeting, "ATTEMPT", timedelta(seconds=1))


@pytest.fixture
def launch() -> LaunchEnvironment:
    """Rank 0 of three, on this machine."""
    return LaunchEnvironment("torchrun", 0, 3, 0, 3, "127.0.0.1", free_port())


@pytest.fixture
def agent(launch) -> dist.TCPStore:
    """The store of torchrun's agent, which outlives its workers."""
    return dist.TCPStore("127.0.0.1", launch.master_port, is_master=True, wait_for_workers=False)


def all_meet(launch: LaunchEnvironment, variables: dict[str, str]) -> list[dist.Store]:
    with ThreadPoolExecutor(3) as pool:
        places = [replace(launch, rank=rank, local_rank=rank) for rank in (2, 1, 0)]
        return list(pool.map(lambda place: meet(place, variables, LONG), places))


def test_rank_0_is_the_store_without_an_agent(launch):
    first, *others = all_meet(launch, {})
    first.set("key", "value")
    assert [store.get("key") for store in others] == [b"value"] * 2


def test_every_round_has_keys_of_its_own(launch, agent):
    """Whatever restarts each machine has counted."""
    rounds = [all_meet(launch, AGENT) for _ in range(3)]
    for number, stores in enumerate(rounds):
        assert not any(store.check(["address"]) for store in stores)
        stores[0].set("address", str(number))
    assert [stores[2].get("address") for stores in rounds] == [b"0", b"1", b"2"]


def test_who_has_greeted_and_died_is_not_there(launch, agent):
    with pytest.raises(LostRankError):
        meet(replace(launch, rank=1), AGENT, SHORT)
    with pytest.raises(LostRankError, match=r"waiting for 2 of 3 processes of this run, ranks 1 to 2; this is rank 0"):
        meet(launch, AGENT, SHORT)


def test_words_of_who_waits(launch, caplog):
    with pytest.raises(LostRankError, match=r"2 of 3 processes.*RANK=0, WORLD_SIZE=3 .*unset RANK WORLD_SIZE") as error:
        meet(launch, {}, SHORT)
    assert error.value.exit_code is ExitCode.LOST_RANK
    assert "ranks 1 to 2" in caplog.messages[0]
    slurm = LaunchEnvironment("slurm", 0, 8, 0, 8, "127.0.0.1", free_port())
    with pytest.raises(LostRankError, match=r"7 of 8 processes.*ranks 1 to 7.*srun -n 8.*env -u SLURM_STEP_NUM_TASKS"):
        meet(slurm, {}, SHORT)


@pytest.mark.parametrize("address", ["no-such-machine.invalid", "127.0.0.1"])
def test_rank_0_that_cannot_be_reached(launch, address, caplog):
    away = replace(launch, rank=2, local_rank=0, master_addr=address)
    with pytest.raises(LostRankError, match=rf"waiting for rank 0 at {address}:\d+ \(.*Errno"):
        meet(away, {}, SHORT)
    assert len(caplog.messages) == 2  # of the first process of a machine
    caplog.clear()
    with caplog.at_level(logging.WARNING), pytest.raises(LostRankError):
        meet(replace(away, local_rank=1), {}, SHORT)
    assert caplog.messages == []


def test_something_else_at_the_port(launch):
    with socket.create_server(("127.0.0.1", launch.master_port)):  # takes connections and never answers
        with pytest.raises(LostRankError, match="waiting for rank 0 at"):
            meet(replace(launch, rank=1), {}, SHORT)
        with pytest.raises(UserError, match=rf"port {launch.master_port} .* is taken.*MASTER_PORT.*left over"):
            meet(launch, {}, SHORT)


def test_a_rank_that_is_there_twice(launch, agent):
    with ThreadPoolExecutor(2) as pool:
        twins = [pool.submit(meet, replace(launch, rank=1), AGENT, SHORT) for _ in range(2)]
        errors = sorted(str(twin.exception()) for twin in twins)
    assert "says that it is rank 1 of this run, and so does process" in errors[1]


@pytest.mark.parametrize("wrong", [{"RANK": "3"}, {"RANK": "-1"}, {"MASTER_PORT": "70000"}])
def test_places_that_there_are_not(wrong):
    variables = {"MASTER_ADDR": "host", "MASTER_PORT": "1", "RANK": "0", "WORLD_SIZE": "3"}
    with pytest.raises(UserError, match="ranks count from 0, and ports end at 65535"):
        detect_environment({**variables, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1", **wrong})


@pytest.mark.parametrize(
    ("ranks", "words"),
    [([3], "rank 3"), ([1, 2, 3, 7], "ranks 1 to 3, 7"), ([0, 2, 4, 5], "ranks 0, 2, 4 to 5")],
)
def test_numbers_for_people(ranks, words):
    assert rank_list(ranks) == words


@pytest.fixture
def boards(launch, agent, monkeypatch):
    """What rank 1, on its way to the fifth collective, and rank 0, in it for a minute, know of each other."""
    monkeypatch.setattr(Whereabouts, "_run", lambda self: None)
    monkeypatch.setattr(whereabouts, "_activity", lambda: "opening the data sets for 61 s")
    made = []
    for rank, progress in ((1, (4, None)), (0, (5, 60.0))):
        monkeypatch.setattr(whereabouts, "progress", lambda progress=progress: progress)
        made.append(Whereabouts(agent.clone(), replace(launch, world_size=2, rank=rank)))
        made[-1]._say()
    yield made
    for board in made:
        board.close()


def test_whom_a_rank_waits_for(boards, caplog, monkeypatch):
    behind, waiting = boards
    assert behind.behind == []
    (words,) = waiting.behind
    assert words.startswith("rank 1 (process ")
    assert words.endswith(", opening the data sets for 61 s")
    monkeypatch.setattr(waiting, "_notice", 59.0)
    waiting._say()
    waiting._say()  # a minute is less than the next notice
    assert caplog.messages == [f"waiting for {words}"]


def test_a_rank_that_is_not_heard_of(boards, monkeypatch):
    monkeypatch.setattr(whereabouts, "SILENT", -1.0)
    boards[1]._say()
    assert "not heard of for 0 s: stopped, or its machine is gone; last opening the data sets" in boards[1].behind[0]


def test_the_end_of_the_store_ends_nothing(boards, monkeypatch):
    def gone(*args):
        raise dist.DistNetworkError("connection reset by peer")

    monkeypatch.setattr(Whereabouts, "_look", gone)
    boards[1]._say()
