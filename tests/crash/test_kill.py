"""Kill the server at random moments under load, and account for every event afterwards."""

from __future__ import annotations

import random
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from programs import WALBATCH, Site, eventually, grown, site
from total_queue import Verdict, judge

SUPPORT = Path(__file__).parent.parent / "support"
CLIENTS = 3
KILLS = 30

pytestmark = pytest.mark.crash


def kill_again_and_again(here: Site, kills: int, seed: int, entry: tuple[str, ...]) -> Verdict:
    """Run clients against a server that is killed `kills` times, then drain, and judge."""
    moments = random.Random(seed)
    here.sink("--fail-rate", "0.1", "--latency", "5ms", "--seed", str(seed))
    logs = [here.path / f"client-{n}.log" for n in range(CLIENTS)]
    server = here.serve(entry=entry)
    clients = [
        here.start(sys.executable, str(SUPPORT / "load_client.py"), f"127.0.0.1:{here.grpc_port}", str(log), log.stem)
        for log in logs
    ]
    for _ in range(kills):
        size = sum(log.stat().st_size for log in logs if log.exists())
        eventually(partial(grown, logs, size + 2000), "the clients go on")
        threading.Event().wait(moments.uniform(0, 0.15))  # the moment is the experiment, not a hope
        server.kill()
        server = here.start(*entry)
        if moments.random() < 0.2:  # now and then also during the recovery itself
            threading.Event().wait(moments.uniform(0, 0.6))
            server.kill()
            server = here.start(*entry)
        eventually(partial(here.is_ready, server), "the server is ready again")
    for client in clients:
        assert client.process.poll() is None, client.output()
        client.kill()
    server.kill()
    here.serve()
    here.drained()
    return judge([log.read_text() for log in logs], here.delivered_lines())


@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_by_30_kills(tmp_path: Path) -> None:
    """Every acknowledged event arrives at least once, copies are identical, and nothing arrives that nobody sent."""
    with site(tmp_path, retry_base="50ms", retry_max="200ms") as here:
        verdict = kill_again_and_again(here, KILLS, seed=20261123, entry=(WALBATCH, "serve"))
        print(verdict.summary())
        assert len(verdict.acked) > 10 * KILLS
        assert not verdict.lost
        assert not verdict.unexpected
        assert verdict.duplicated, "no kill fell between a delivery and its settlement: the bytes were not compared"
        assert not verdict.altered


@pytest.mark.timeout(120)
def test_a_server_that_answers_before_the_commit_is_caught(tmp_path: Path) -> None:
    """The same kills and the same checker find the loss in a server that acknowledges too early."""
    early = (sys.executable, str(SUPPORT / "early_ack_server.py"))
    with site(tmp_path, retry_base="50ms", retry_max="200ms") as here:
        verdict = kill_again_and_again(here, 3, seed=1, entry=early)
        assert verdict.lost
