"""Where the processes of a run find each other before they form a group, and who is still missing.

torch waits for them without a word, and under `torchrun --max-restarts` it may read what a process that is gone has
left in the launcher's store: the keys of all rounds are the same, and TORCHELASTIC_RESTART_COUNT differs between
machines, since each counts the restarts that began there. So every process here says hello by a number of its own,
rank 0 answers it with the number of the round, and all keys of the group stand below that.
"""

import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise

import torch.distributed as dist

from dinov2.errors import LostRankError, UserError

from .environment import LaunchEnvironment

logger = logging.getLogger("dinov2")

FIRST_NOTICE = 3.0  # seconds; the next ones after three times as long each
POLL = 0.05  # seconds between looks
ATTEMPT = timedelta(seconds=10)  # for a connection to the store


def meet(launch: LaunchEnvironment, variables: Mapping[str, str], timeout: timedelta) -> dist.Store:
    """Wait until all processes of the run are there; a store that only they use.

    Args:
        variables: of the environment.
    Raises:
        LostRankError: if some have not come in time.
        UserError: if rank 0 cannot be found by others, or a rank is there twice.
    """
    # torchrun's agent is the store of its workers; otherwise rank 0 is.
    agent = variables.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    meeting = _Host(launch, serve=not agent) if launch.rank == 0 else _Guest(launch)
    begun, notice = time.monotonic(), FIRST_NOTICE
    meeting.start()
    while meeting.is_alive():
        meeting.join(POLL)
        waited = time.monotonic() - begun
        text = f"waiting for {meeting.missing}; this is rank {launch.rank} of {launch.world_size}, {whoami()}. "
        if waited > timeout.total_seconds():
            meeting.given_up = True
            raise LostRankError(f"given up after {waited:.0f} s of {text}{launch.how_to_start(variables)}")
        if waited > notice:
            notice *= 3
            if meeting.speaks:
                logger.warning(text + launch.how_to_start(variables))
    if isinstance(meeting.result, Exception):
        raise meeting.result
    meeting.result.set_timeout(timeout)
    return meeting.result


class _Meeting(threading.Thread):
    """What a process does to meet the others, in a thread: a stopped rank 0 takes connections and never answers."""

    def __init__(self, launch: LaunchEnvironment, *, serve: bool = False) -> None:
        super().__init__(name="meeting", daemon=True)
        self.launch, self.serve = launch, serve
        self.rank_0 = f"rank 0 at {launch.master_addr}:{launch.master_port}"
        self.missing = f"{self.rank_0} (it does not answer)"
        self.speaks = launch.local_rank == 0  # one process of a machine is enough
        self.given_up = False
        self.result: dist.Store | Exception

    def run(self) -> None:
        """Look again and again; the result is a store or an error."""
        store = None
        while not self.given_up:
            try:
                store = store or self.open()
                if (number := self.look(store)) is not None:
                    self.result = dist.PrefixStore(f"dinov2/{number}", store)
                    return
            except (OSError, dist.DistError) as error:
                store, self.missing = None, f"{self.rank_0} ({' '.join(str(error).split()):.200})"
            except Exception as error:
                self.result = error
                return
            time.sleep(POLL)

    def open(self) -> dist.TCPStore:
        """Connect to the store, or be it.

        Raises:
            OSError, dist.DistError: if that does not work, or not yet.
            UserError: if the port is taken.
        """
        address, port = self.launch.master_addr, self.launch.master_port
        if self.serve:
            address = "127.0.0.1"  # whatever others know this machine by
        else:
            # torch tries again and again for as long as it may, and does not say why.
            socket.create_connection((address, port), ATTEMPT.total_seconds()).close()
        try:
            return dist.TCPStore(address, port, is_master=self.serve, wait_for_workers=False, timeout=ATTEMPT)
        except dist.DistNetworkError as error:
            if "EADDRINUSE" not in str(error):
                raise
            raise UserError(
                f"port {port} of this machine, where the processes of this run are to meet, is taken: by another run, "
                "for which MASTER_PORT sets another port, or by a process that is rank 0 of this run as well (RANK, "
                "WORLD_SIZE and MASTER_ADDR left over in the environment of a job that srun starts?)"
            ) from error

    def look(self, store: dist.Store) -> str | None:
        """Take the next step through the store; the number of the round when all are there."""
        raise NotImplementedError


class _Host(_Meeting):
    """Rank 0: it answers the others and says when all are there."""

    def __init__(self, launch: LaunchEnvironment, *, serve: bool) -> None:
        super().__init__(launch, serve=serve)
        self.round = uuid.uuid4().hex
        self.awaited = list(range(1, launch.world_size))

    def look(self, store: dist.Store) -> str | None:
        """Answer who is new."""
        for rank in list(self.awaited):
            if store.check([f"dinov2/hello/{rank}"]):
                store.set(f"dinov2/answer/{store.get(f'dinov2/hello/{rank}').decode().split()[0]}", self.round)
            if store.check([f"dinov2/{self.round}/joined/{rank}"]):
                self.awaited.remove(rank)
        if self.awaited:
            count, size = len(self.awaited), self.launch.world_size
            self.missing = f"{count} of {size} processes of this run, {rank_list(self.awaited)}"
            return None
        store.set(f"dinov2/{self.round}/complete", "")
        return self.round


class _Guest(_Meeting):
    """Any other rank."""

    def __init__(self, launch: LaunchEnvironment) -> None:
        super().__init__(launch)
        self.number = uuid.uuid4().hex
        self.greeted: dist.Store | None = None

    def look(self, store: dist.Store) -> str | None:
        """Say hello, and hear from rank 0 whether all are there."""
        rank, self.missing = self.launch.rank, self.rank_0
        if self.greeted is not store:
            store.set(f"dinov2/hello/{rank}", f"{self.number} {whoami()}")
            self.greeted = store
        number, _, who = store.get(f"dinov2/hello/{rank}").decode().partition(" ")
        if number != self.number:
            raise UserError(
                f"{who} says that it is rank {rank} of this run, and so does {whoami()}: every "
                "process needs a RANK of its own; torchrun and srun see to that"
            )
        if not store.check([f"dinov2/answer/{self.number}"]):
            return None
        answer = store.get(f"dinov2/answer/{self.number}").decode()
        store.set(f"dinov2/{answer}/joined/{rank}", "")
        self.missing, self.speaks = "other processes, as rank 0 says", False
        return answer if store.check([f"dinov2/{answer}/complete"]) else None


def whoami() -> str:
    """This process, for people on any machine."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def rank_list(ranks: list[int]) -> str:
    """Ascending numbers for people: "rank 3", "ranks 1 to 4, 7"."""
    breaks = [0, *(place for place, (a, b) in enumerate(pairwise(ranks), start=1) if b > a + 1), len(ranks)]
    runs = [(ranks[first], ranks[last - 1]) for first, last in pairwise(breaks)]
    names = [f"{a}" if a == b else f"{a} to {b}" for a, b in runs]
    return ("rank " if len(ranks) == 1 else "ranks ") + ", ".join(names[:10]) + (", …" if len(names) > 10 else "")
