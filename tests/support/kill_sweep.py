"""A server that is killed at one call after the other, while its clients and its destination go on."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from faultshim import BEFORE, CHANGES, SYNC, WHENS, Shim
from load import Load
from programs import Site, environment, eventually, site
from total_queue import Verdict, judge

SUPPORT = Path(__file__).parent
CLIENTS = 2
ROUND_LIMIT_S = 5.0
"""After which a server is killed that did not come to its call: that is a kill at a random moment."""

BATCH_MAX, MAX_IN_FLIGHT = 100, 2
MOST_REPEATS_PER_KILL = BATCH_MAX * (MAX_IN_FLIGHT + 1)
"""Requests with events, and one with updates, may be under way at a kill, and come again."""

SETTINGS = {
    "flush_interval": "20ms",
    "batch_max": BATCH_MAX,
    "max_in_flight": MAX_IN_FLIGHT,
    "retention": "1s",  # so that each start has something to purge
    "retry_base": "20ms",
    "retry_max": "100ms",
    "log_level": "warning",
}


@dataclass(frozen=True, slots=True)
class Plan:
    """Where a server ends: at its `at`-th call of some kinds, after its start or after a stop signal."""

    at: int
    when: str = BEFORE
    kinds: Sequence[str] = CHANGES
    stopping: bool = False
    random_s: float | None = None
    """If not None, it is killed after so long instead."""


def plans(kills: int, seed: int) -> Iterator[Plan]:
    """Yield where to kill: call by call from the first one on, further and further away, at stops, at random times."""
    chance = random.Random(seed)
    for number in range(kills):
        when = WHENS[number % len(WHENS)]
        match number % 8:
            case 0 | 1 | 2:  # the start, call by call: before, in the middle of and after each in turn
                yield Plan(number // 8 + 1, when)
            case 3 | 4:
                yield Plan(round(10 ** chance.uniform(1, 3)), when)
            case 5:
                yield Plan(round(10 ** chance.uniform(0, 2)), when, (SYNC,))
            case 6:
                yield Plan(1 + number // 8 % 20, when, stopping=True)
            case _:
                yield Plan(1, random_s=chance.uniform(0, 0.5))


@dataclass(slots=True)
class Swept:
    """What a sweep did."""

    verdict: Verdict = field(default_factory=lambda: judge([], []))
    kills: int = 0
    where: Counter[str] = field(default_factory=Counter)
    """What the server was doing when it was killed, how often: `append`, `settle`, `purge`, `checkpoint`, ..."""
    calls: Counter[str] = field(default_factory=Counter)
    """At which kind of call."""


class ForkServer:
    """The process of which each server is a fork."""

    def __init__(self, here: Site, shim: Shim, variant: Sequence[str]) -> None:
        self.log = here.path / "servers.log"
        with self.log.open("ab") as stderr:
            self._process = subprocess.Popen(
                [sys.executable, str(SUPPORT / "fork_server.py"), *variant],
                env=environment(**here.settings) | shim.environment | {"GRPC_ENABLE_FORK_SUPPORT": "0"},
                cwd=here.path,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )

    def start(self) -> int:
        """Return the pid of a new server."""
        return self._ask("start")

    def end(self, limit_s: float) -> int:
        """Wait for the server to end, kill it if it does not, and return its exit code, or minus the signal."""
        return self._ask(f"wait {limit_s}")

    def close(self) -> None:
        """End it. The server under way, if any, is killed."""
        with self._process:
            self._process.kill()

    def _ask(self, line: str) -> int:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, self.log.read_text()
        return int(answer)


@contextmanager
def fork_server(here: Site, shim: Shim, variant: Sequence[str]) -> Iterator[ForkServer]:
    """A fork server that ends with the block."""
    made = ForkServer(here, shim, variant)
    try:
        yield made
    finally:
        made.close()


def sweep(path: Path, planned: Sequence[Plan], seed: int, *, variant: Sequence[str] = ()) -> Swept:
    """Kill a server at each of these places in turn, on one data directory, and judge. `path` is made."""
    path.mkdir()
    with site(path, **SETTINGS) as here:
        shim = Shim(path)
        here.sink("--fail-rate", "0.1", "--latency", "5ms", "--seed", str(seed))
        load = Load(here, CLIENTS, "--timed")
        with fork_server(here, shim, variant) as servers:
            swept = Swept()
            for plan in planned:
                _kill(here, shim, servers, plan, swept)
            shim.disarm()
            pid = servers.start()
            load.goes_on(0)
            load.end()
            swept.verdict = load.settled()
            os.kill(pid, signal.SIGTERM)
            assert servers.end(ROUND_LIMIT_S) == 0, servers.log.read_text()
        return swept


def _kill(here: Site, shim: Shim, servers: ForkServer, plan: Plan, swept: Swept) -> None:
    shim.disarm()
    if not plan.stopping and plan.random_s is None:
        shim.kill(plan.at, *plan.kinds, when=plan.when)
    pid = servers.start()
    if plan.stopping:
        eventually(lambda: here.lock().get("pid") == pid and "admin" in here.lock(), "the server listens")
        shim.kill(plan.at, *plan.kinds, when=plan.when)
        os.kill(pid, signal.SIGTERM)
    code = servers.end(ROUND_LIMIT_S if plan.random_s is None else plan.random_s)
    if code == 0 and plan.stopping:
        return  # the whole stop has fewer calls than that
    assert code == -signal.SIGKILL, f"{plan}: exit {code}\n{servers.log.read_text()}"
    kind, file = shim.last
    at_call = plan.random_s is None and shim.hit > 0
    swept.kills += 1
    swept.calls[kind if at_call else "random time"] += 1
    doing = shim.noted
    swept.where[
        "checkpoint" if at_call and file == "events.db" and doing not in {"start-up", "shutdown"} else doing
    ] += 1
